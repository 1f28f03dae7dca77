"""Measuring: coverage, set sizes and errors of the rings, by brute force elsewhere."""

from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest

from segcal_cli.kandinsky.coverage_errors import cell_errors, noise_floor
from segcal_cli.kandinsky.coverage_rows import WHOLE, CoverageRows, method_rows, same_places
from segcal_cli.kandinsky.measuring import CoverageMeasurement
from segcal_cli.kandinsky.model import Model
from segcal_cli.kandinsky.passes import CalibrationPass
from segcal_cli.kandinsky.regions import Regions
from tests.kandinsky.builders_rings import AUTHORS, EXACT, PLACING, SPACE, cases, images, run
from tests.kandinsky.test_pools import REGIONS

ALPHAS = tuple(float(alpha) for alpha in EXACT["alphas"])
SIZES = {case.group: 2 for case in cases("calibration")}


def fitted(regions, weighting):
    return Model(SPACE, regions, *run(CalibrationPass(SPACE, regions, SIZES, 10**9), cases("calibration")), weighting)


@cache
def ring_model(method, weighting):
    """Frozen, so that tests can share it."""
    return fitted(REGIONS[method], weighting)


def rows(model, empty="allow", alphas=ALPHAS, **more):
    counting = CoverageMeasurement(model, alphas, PLACING, empty, **more)
    return CoverageRows(counting, run(counting, cases("test")))


@pytest.mark.parametrize(
    ("method", "weighting"),
    [
        ("atlas", "voxel"),
        ("image", "patient"),
        ("boundary", "patient"),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in product(("image", "boundary", "pixel"), ("voxel",))),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in product(("atlas", "pixel"), ("patient",))),
    ],
)
def test_coverage_sizes_and_errors_are_those_of_the_brute_force(method, weighting):
    found = rows(ring_model(method, weighting))
    key = f"A_{method}_{{}}_{weighting}".format
    coverage = [row for row in found.coverage() if row["cluster"] == WHOLE]
    for index, row in enumerate(coverage):
        alpha, channel = divmod(index, 3)
        by_voxel, by_patient = EXACT[key("coverage")][0, alpha, channel]
        assert row["coverage_voxel"] == pytest.approx(by_voxel, abs=1e-12)
        assert row["coverage_patient"] == pytest.approx(by_patient, abs=1e-12)
    for alpha, entry in enumerate(found.sets()):
        assert entry["mean_size"] == pytest.approx(EXACT[key("set_size")][0, alpha], abs=1e-12)
        assert entry["empty_share"] == pytest.approx(EXACT[key("empty_share")][alpha], abs=1e-12)
        expected = EXACT[key("false_inclusion")][0, alpha]
        assert list(entry["false_inclusion"].values()) == pytest.approx(expected.tolist(), abs=1e-12)
    assert found.places(1).error == pytest.approx(EXACT[key("ce20")].ravel(), abs=1e-6)
    assert found.errors()[1]["ce20_mean"] == pytest.approx(float(EXACT[key("ce20_mean")]), abs=1e-9)
    levels = [row["coverage_voxel"] for row in found.levels() if row["class"] == "organ" and row["cluster"] == WHOLE]
    assert levels == pytest.approx(EXACT[key("cov20")][:, 1].tolist(), abs=1e-12)


@pytest.mark.parametrize("method", ["image", "atlas"])
def test_filling_empty_sets_gives_the_numbers_of_top1(method):
    found = rows(ring_model(method, "patient"), "top1")
    for alpha, entry in enumerate(found.sets()):
        assert entry["mean_size"] == pytest.approx(EXACT[f"A_{method}_set_size_patient"][1, alpha], abs=1e-12)


def test_the_authors_maps_give_the_errors_of_the_brute_force():
    for name, mask in (
        ("kmeans", AUTHORS["A_kmeans_mask"].astype(int)),
        ("genann", AUTHORS["A_genann_mask"].astype(int) - 1),
    ):
        cells = np.clip(mask, 0, 3).astype(np.uint8)[None]
        found = rows(fitted(Regions("kmeans", (1, 4, 1), PLACING, {1: cells}), "voxel"), alphas=(0.1,))
        assert found.errors()[1]["ce20_mean"] == pytest.approx(float(EXACT[f"A_{name}map_ce20_mean_voxel"]), abs=2e-4)


def test_the_imagewise_baseline_is_that_of_the_image_method():
    found = rows(ring_model("atlas", "patient"), alphas=(0.1,))
    assert found.errors()[1]["image_ce20_mean"] == pytest.approx(0.14941, abs=5e-6)


def test_the_noise_floor_is_that_of_exact_coverage():
    assert [noise_floor(int(n)) for n in EXACT["ce_floor_n"]] == pytest.approx(EXACT["ce_floor"].tolist(), abs=1e-12)


def test_a_cell_without_positives_has_no_error():
    errors = cell_errors(np.zeros((1, 20), np.int64))
    assert errors.n.tolist() == [0]
    assert np.isnan(errors.error[0])


def test_shortfall_counts_missing_coverage_alone():
    levels = np.zeros((2, 20), np.int64)
    levels[0, 0], levels[1, 19] = 10, 10
    errors = cell_errors(levels)
    assert errors.shortfall.tolist() == pytest.approx([0.0, 0.475])
    assert errors.error.tolist() == pytest.approx([0.475, 0.475])


def test_merging_in_any_order_gives_the_same_result():
    counting = CoverageMeasurement(ring_model("atlas", "patient"), (0.1,), PLACING)
    forward, backward = (run(counting, some) for some in (cases("test")[:8], cases("test")[:8][::-1]))
    assert list(forward.cases) == list(backward.cases)
    assert np.array_equal(forward.cells.keys, backward.cells.keys)
    assert np.array_equal(forward.cells.columns, backward.cells.columns)


@pytest.mark.parametrize("numbers", [10**6, 5000])
def test_resampled_errors_are_those_of_patients_counted_as_often_as_drawn(monkeypatch, numbers):
    monkeypatch.setattr("segcal_cli.kandinsky.coverage_rows.PLACE_NUMBERS", numbers)
    some = cases("test")[:12]
    counting = CoverageMeasurement(ring_model("atlas", "patient"), (0.2,), PLACING, keep_places=True)
    found = CoverageRows(counting, run(counting, some))
    drawn = np.array([[1] * 6, [0, 2, 0, 1, 3, 0], [6, 0, 0, 0, 0, 0]])
    errors = found.resampled_errors(drawn)
    assert errors.shape == (3, 3)
    for weights, row in zip(drawn, errors, strict=True):
        names = [name for name, n in zip(found.groups, weights, strict=True) for _ in range(n)]
        again = [
            replace(case, id=f"{case.id}_{i}") for i, name in enumerate(names) for case in some if case.group == name
        ]
        expected = [entry["ce20_mean"] for entry in CoverageRows(counting, run(counting, again)).errors()]
        assert row == pytest.approx(expected, abs=1e-12)


def test_the_papers_own_definition_reproduces_its_numbers():
    """Linear quantiles at i/99 without +1, and |coverage at (5i + 4)/99 - (i + .5)/20|, with which a perfect method
    scores .0202."""
    probs, labels, _ = images("calibration")
    scores = 1 - probs[:, 1] / 2048.0
    pooled = np.quantile(scores[labels == 1], np.linspace(0, 1, 100))
    assert np.abs(pooled - AUTHORS["A_image_curves"][:, 1]).max() < 1e-12
    masked = np.where(labels == 1, scores, np.nan)
    rows_ = np.nanquantile(masked, np.linspace(0, 1, 100)[::6], axis=0)
    assert np.abs(rows_ - AUTHORS["A_pixel_curves_class1_rows"]).max() < 1e-6
    probs, labels, _ = images("test")
    test_scores, positive = 1 - probs[:, 1] / 2048.0, labels == 1
    levels = [5 * (i + 1) - 1 for i in range(20)]
    n = positive.sum(axis=0)
    error = (
        sum(
            np.abs(((test_scores <= pooled[level]) & positive).sum(axis=0) / n - (i + 0.5) / 20)
            for i, level in enumerate(levels)
        )
        / 20
    )
    close = np.abs(error - AUTHORS["A_ce20_image_test"]) < 1e-6
    assert (~close).sum() <= 3
    assert error.mean() == pytest.approx(0.15111, abs=1e-4)


def test_intervals_of_coverage_stay_shares():
    """Nearly all patients are held wholly, so that resamples without the others have no spread at all."""
    counting = CoverageMeasurement(ring_model("boundary", "patient"), (0.02, 0.3), PLACING)
    entries = CoverageRows(counting, run(counting, cases("test")[:16])).coverage()
    bounds = [row[end] for row in entries for end in ("low", "high") if row[end] is not None]
    assert bounds
    assert all(0.0 <= bound <= 1.0 for bound in bounds)


def test_no_error_is_called_lowest_where_places_differ():
    some = cases("test")[:60]
    fields = (PLACING, replace(PLACING, block=4))
    named = []
    for name, regions, placing in (
        ("atlas", "atlas", fields[0]),
        ("image", "image", fields[0]),
        ("b", "image", fields[1]),
    ):
        counting = CoverageMeasurement(ring_model(regions, "patient"), (0.2,), placing, keep_places=True)
        named.append((name, CoverageRows(counting, run(counting, some))))
    assert same_places([one for _, one in named[:2]])
    assert {row["artifact"] for row in method_rows(named[:2]) if row["best"]} == {"atlas"}
    assert not any(row["best"] for row in method_rows(named))
