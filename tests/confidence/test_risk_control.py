"""Risk control: the integer curve of missed fractions."""

from fractions import Fraction

import numpy as np
import pytest

from segcal_cli.confidence.risk_control import (
    EDGES,
    UNITS,
    bonferroni_images,
    crc_budget,
    grid_threshold,
    missed_below,
    missed_units,
)


def test_missed_voxels_lie_strictly_below_an_edge():
    s = np.array([-40.0, -32.0, -31.9921875, 0.0, 0.0078125 + 1e-12, 33.0])
    found = missed_below(s)
    assert found.tolist() == [int((s < edge).sum()) for edge in EDGES]


@pytest.mark.parametrize("voxels", [1, 3, 7, 10**6 + 3, 2**31 - 1])
def test_fractions_are_rounded_up_to_whole_units(voxels):
    missed = np.array([0, 1, voxels // 2, voxels - 1, voxels], np.int64)
    exact = [-((-Fraction(int(m), voxels) * UNITS) // 1) for m in missed]
    found = missed_units(np.resize(missed, EDGES.size), voxels)[:5]
    assert found.tolist() == exact


def test_an_empty_truth_loses_nothing():
    assert not missed_units(np.zeros(EDGES.size, np.int64), 0).any()


def test_a_negative_budget_keeps_everything():
    assert crc_budget(5, 0.1) < 0
    assert grid_threshold(np.zeros(EDGES.size, np.int64), 5, crc_budget(5, 0.1)) == -np.inf


def test_pixelwise_bonferroni_needs_a_million_images():
    assert bonferroni_images(352 * 352, 0.1) == 1_239_039
