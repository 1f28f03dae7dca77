"""Isotonic regression and histogram binning: against independent code, on single voxels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from segcal_cli.calibration import histogram, isotonic
from segcal_cli.calibration.curves import log_odds_of
from segcal_cli.calibration.likelihood import sigmoid
from segcal_cli.calibration.method import NLL, Aim, filled
from segcal_cli.calibration.sketch import moments_of, table_of

FIT = np.load(Path(__file__).parent / "fixtures" / "fit.npz")
Z, Y = FIT["fit_z"], FIT["fit_y"].astype(bool)
MOMENTS = moments_of(table_of(Z, Y)[np.newaxis])


def test_isotonic_is_that_of_all_voxels():
    row = isotonic.solve(MOMENTS, NLL)[0]
    points = np.linspace(-6.0, 6.0, 15)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(Z, Y).predict(points)
    gaps = np.abs(isotonic.curve(row, points) - np.clip(theirs, 1 / 4001, 4000 / 4001))
    assert gaps.max() <= 0.06
    assert gaps.mean() <= 0.01


def test_isotonic_rises_and_stays_away_from_0_and_1():
    z = np.linspace(-10.0, 10.0, 4001)
    p = sigmoid(isotonic.METHOD.log_odds(isotonic.solve(MOMENTS, NLL)[0], z))
    assert (np.diff(p) >= 0.0).all()
    assert p.min() >= 1 / 4001 - 1e-15
    assert p.max() <= 4000 / 4001 + 1e-15


def test_isotonic_cuts_where_it_crosses_one_half():
    row = isotonic.solve(MOMENTS, NLL)[0]
    cut = isotonic.cut_of(row)
    assert cut is not None
    assert isotonic.curve(row, np.array(cut)) == pytest.approx(0.5, abs=1e-12)
    assert isotonic.cut_of(np.array([-1.0, 1.0, 0.1, 0.4])) is None


@pytest.mark.parametrize("binning", ["mass", "width"])
def test_histogram_shares_are_those_of_the_voxels_in_each_bin(binning: str):
    row = histogram.solve(MOMENTS, Aim(bins=10, binning=binning))[0]
    edges, p = np.split(row, [len(row) // 2])
    place = np.searchsorted(edges, Z)
    assert len(p) == 10
    for k in range(10):
        assert p[k] == pytest.approx(np.clip(Y[place == k].mean(), 1 / 4001, 4000 / 4001), abs=1e-12)
    if binning == "mass":
        assert np.bincount(place).min() >= 370  # 400 but for the width of the sketch's bins
    else:
        np.testing.assert_allclose(sigmoid(edges), np.arange(1, 10) / 10, atol=2e-3)
        assert edges[4] == 0.0


def test_a_histogram_bin_without_voxels_returns_its_middle():
    z = np.repeat([-3.0, 3.0], 50)
    row = histogram.solve(moments_of(table_of(z, z > 0)[np.newaxis]), Aim(bins=10, binning="width"))[0]
    np.testing.assert_allclose(row[9:][[4, 5]], [0.45, 0.55], atol=2e-3)


def test_many_equal_voxels_take_one_histogram_bin():
    z = np.concatenate([np.full(900, -20.0), np.linspace(-2.0, 2.0, 100)])
    row = histogram.solve(moments_of(table_of(z, z > 0)[np.newaxis]), Aim(bins=20))[0]
    edges, p = np.split(row, [len(row) // 2])
    assert len(p) == 3
    assert np.bincount(np.searchsorted(edges, z)).tolist()[0] == 900


def test_a_histogram_has_a_cut_only_where_it_crosses_one_half_once():
    assert histogram.cut_of(np.array([-1.0, 1.0, 0.1, 0.6, 0.9])) == -1.0
    assert histogram.cut_of(np.array([-1.0, 1.0, 0.6, 0.1, 0.9])) is None


def test_rows_of_several_problems_are_filled_up_and_an_empty_one_changes_nothing():
    tables = np.stack([table_of(Z, Y), table_of(Z[:50], Y[:50])])
    for method in (isotonic, histogram):
        long, short = method.solve(moments_of(tables), NLL)
        alone = method.solve(moments_of(tables[1:]), NLL)[0]
        assert len(filled(short)) <= len(filled(long))
        np.testing.assert_array_equal(filled(short), filled(alone))
    np.testing.assert_array_equal(log_odds_of(isotonic.curve, np.full(4, np.nan), Z), Z)
    assert isotonic.cut_of(np.full(4, np.nan)) == 0.0
    for method in (isotonic, histogram):
        assert method.METHOD.loss(MOMENTS, np.full((1, 3), np.nan), NLL)[0] == pytest.approx(
            (np.logaddexp(0, Z) - Y * Z).mean(), abs=1e-8
        )
