"""Maps of disagreement: against independent code and against two passes over all members."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segcal_cli.calibration.disagreement import Disagreement, entropy_of

MCD = np.load(Path(__file__).parent / "fixtures" / "mcd.npz")


def summed(members, exclusive):
    sums = Disagreement(exclusive)
    for p in members:
        sums.add(p.astype(np.float64))
    return sums


def test_mean_and_entropy_are_those_of_the_reference():
    sums = summed(MCD["prob"][:, np.newaxis], exclusive=False)
    np.testing.assert_allclose(sums.p[0] / 20, MCD["mean"], atol=1e-9)
    np.testing.assert_allclose(sums.maps()["entropy"], MCD["entropy"], atol=1e-6)


@pytest.mark.parametrize("exclusive", [True, False])
def test_maps_are_those_of_two_passes(exclusive: bool):
    members = np.random.default_rng(0).dirichlet(np.full(3, 0.3), (7, 2, 4, 5)).transpose(0, 4, 1, 2, 3)
    maps = summed(members, exclusive).maps()
    each = np.stack([entropy_of(p, exclusive=exclusive) for p in members])
    entropy = entropy_of(members.mean(axis=0), exclusive=exclusive)
    np.testing.assert_allclose(maps["entropy"], entropy, atol=1e-6)
    np.testing.assert_allclose(maps["mutual-information"], entropy - each.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(maps["variance"], members.var(axis=0).mean(axis=0), atol=1e-6)


def test_members_that_agree_have_no_mutual_information():
    p = np.random.default_rng(0).dirichlet(np.ones(3), (2, 2, 2)).transpose(3, 0, 1, 2)
    maps = summed([p] * 5, exclusive=True).maps()
    assert maps["mutual-information"].max() <= 1e-7
    assert maps["variance"].max() <= 1e-12


def test_certain_members_that_contradict_each_other_are_one_bit_apart():
    members = [np.array([1.0, 0.0]).reshape(2, 1, 1, 1), np.array([0.0, 1.0]).reshape(2, 1, 1, 1)]
    maps = summed(members, exclusive=True).maps()
    assert maps["mutual-information"].item() == pytest.approx(np.log(2.0), abs=1e-7)
    assert maps["variance"].item() == pytest.approx(0.25)
