"""Measures of a case against independent implementations, and the rules of what is counted."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from segcal_cli.core.labels import BadClassTable, Channel, LabelMap, LabelSpace
from segcal_cli.core.scores import Scores, scores_of_log_odds
from segcal_cli.core.volume import Box
from segcal_cli.metrics import measures
from segcal_cli.metrics.cells import BadBins
from segcal_cli.metrics.likelihood import counted_scores
from segcal_cli.metrics.measures import NothingToMeasure, NoTruth, Settings, UnknownSetting, measure_case
from tests.metrics.builders_measures import REFERENCE, binary_case, measured, random_softmax, region_case, softmax_case

OWN = 1e-9
"""Agreement with float64 references; probabilities of one channel are compared after float32 rounding of 1 - p."""

FLOAT32 = 5e-7
"""Agreement with packages that sum in float32."""

CELLS = (
    "adaptive_ece",
    "smooth_ece",
    "brier",
    "nll",
    "brier_mcb",
    "brier_dsc",
    "brier_unc",
    "nll_mcb",
    "nll_dsc",
    "nll_unc",
)
CELL_TOLERANCE = np.array([1e-5, 1e-5] + [1e-6] * 8)


def binned(columns):
    return [columns[key] for key in ("ece", "ace", "mce", "n_bins")]


def reference_row(key, index=()):
    ece, skip, _, mce, filled = REFERENCE[key][index]
    return [ece, skip, mce, filled]


@pytest.mark.parametrize("closed", ["right", "left"])
@pytest.mark.parametrize("k", range(3))
def test_binary_errors_equal_the_float64_reference_on_either_closure(closed, k):
    case = binary_case(REFERENCE["bin_prob"][k], REFERENCE["bin_label"][k])
    row = measured(case, Settings(closed=closed)).classes["lesion"]
    assert binned(row) == pytest.approx(reference_row(f"own.bin.fg.M20.{closed}closed", k), abs=OWN)
    assert row["brier"] == pytest.approx(REFERENCE["own.bin.brier"][k], abs=OWN)
    assert row["nll"] == pytest.approx(REFERENCE["own.bin.nll"][k], abs=OWN)
    assert row["volume_bias"] == pytest.approx(REFERENCE["own.bin.bias_signed"][k], abs=OWN)


@pytest.mark.parametrize("k", range(3))
def test_a_region_of_interest_leaves_voxels_out_as_the_reference_does(k):
    case = binary_case(REFERENCE["bin_prob"][k], REFERENCE["bin_label"][k], roi=REFERENCE["bin_mask"][k])
    row = measured(case, Settings(closed="left")).classes["lesion"]
    assert binned(row) == pytest.approx(reference_row("own.bin.fg.masked.M20.leftclosed", k), abs=OWN)
    assert row["volume_bias"] == pytest.approx(REFERENCE["own.bin.masked.bias_signed"][k], abs=OWN)
    assert row["ece"] == pytest.approx(REFERENCE["ptc.per_volume_masked_ECE.M20"][k], abs=FLOAT32)
    assert row["n_voxels"] == REFERENCE["bin_mask"][k].sum()


@pytest.mark.parametrize("k", range(3))
def test_the_likelier_of_two_answers_is_binned_by_its_own_confidence(k):
    row = measured(binary_case(REFERENCE["bin_prob"][k], REFERENCE["bin_label"][k])).all
    ece, ace, _, mce, _ = REFERENCE["own.bin.toplabel.M20.rightclosed"][k]
    assert [row["top_ece"], row["top_ace"], row["top_mce"]] == pytest.approx([ece, ace, mce], abs=OWN)


@pytest.mark.parametrize("k", range(3))
def test_softmax_errors_of_every_class_equal_the_reference(k):
    found = measured(softmax_case(REFERENCE["mc_prob"][k], REFERENCE["mc_label"][k]))
    for c in range(4):
        row = found.classes[f"c{c}"]
        for key, name in (("ece", "expected"), ("ace", "average"), ("mce", "maximum")):
            assert row[key] == pytest.approx(REFERENCE[f"own.mc.{name}.M20"][k, c], abs=OWN)
            assert row[key] == pytest.approx(REFERENCE[f"monai.mc.{name}.M20"][k, c], abs=FLOAT32)
        assert row["brier"] == pytest.approx(REFERENCE["own.mc.brier_per_class"][k, c], abs=OWN)
        assert row["dice"] == pytest.approx(REFERENCE["overlap.mc.dice"][k, c], abs=OWN)
        np.testing.assert_array_less(np.abs([row[key] for key in CELLS] - REFERENCE["cells.mc"][k, c]), CELL_TOLERANCE)
    top = reference_row("own.mc.toplabel_per_case.M20.rightclosed", k)[:3]
    assert [found.all[key] for key in ("top_ece", "top_ace", "top_mce")] == pytest.approx(top, abs=OWN)
    assert found.all["joint_nll"] == pytest.approx(REFERENCE["own.mc.nll"][k], abs=OWN)
    assert found.all["joint_brier"] == pytest.approx(REFERENCE["own.mc.brier_sum_over_classes"][k], abs=OWN)


@pytest.mark.parametrize("k", range(2))
def test_sigmoid_regions_are_problems_of_their_own_without_a_top_class(k):
    found = measured(region_case(REFERENCE["reg_prob"][k], REFERENCE["reg_label"][k]))
    for c in range(3):
        for key, name in (("ece", "expected"), ("ace", "average"), ("mce", "maximum")):
            value = found.classes[f"r{c}"][key]
            assert value == pytest.approx(REFERENCE[f"own.reg.{name}.M20"][k, c], abs=OWN)
            assert value == pytest.approx(REFERENCE[f"monai.reg.{name}.M20"][k, c], abs=FLOAT32)
    assert found.all["ace"] == pytest.approx(REFERENCE["own.reg.average.M20"][k].mean(), abs=OWN)
    assert found.all["n_classes"] == 3
    assert all(found.all[key] is None for key in ("top_ece", "top_ace", "top_mce", "accuracy", "joint_nll"))


@pytest.mark.parametrize("name", ["bin", "sat"])
def test_measures_from_cells_equal_those_from_single_voxels(name):
    p, y = np.atleast_2d(REFERENCE[f"{name}_prob"]), np.atleast_2d(REFERENCE[f"{name}_label"])
    for k, expected in enumerate(np.atleast_2d(REFERENCE[f"cells.{name}"])):
        row = measured(binary_case(p[k], y[k])).classes["lesion"]
        np.testing.assert_array_less(np.abs([row[key] for key in CELLS] - expected), CELL_TOLERANCE)


@pytest.mark.parametrize("name", ["edge", "sat"])
@pytest.mark.parametrize("closed", ["right", "left"])
def test_exact_edges_and_exact_zeros_fall_into_the_bins_of_the_definition(name, closed):
    row = measured(binary_case(REFERENCE[f"{name}_prob"], REFERENCE[f"{name}_label"]), Settings(closed=closed))
    assert binned(row.classes["lesion"]) == pytest.approx(reference_row(f"own.{name}.{closed}closed.M20"), abs=OWN)
    if name == "edge":
        n = row.pooled.table("lesion").n
        np.testing.assert_array_equal(n, REFERENCE[f"own.edge.counts.M20.{closed}closed64"])


def test_empty_bins_count_as_zero_gaps_only_on_request():
    case = binary_case(np.array([0.02, 0.99], np.float32), np.array([0, 0]))
    skip, zero = (measured(case, Settings(empty_bins=rule)).classes["lesion"]["ace"] for rule in ("skip", "zero"))
    assert skip == pytest.approx((0.02 + 0.99) / 2, abs=1e-7)
    assert zero == pytest.approx((0.02 + 0.99) / 20, abs=1e-7)


def test_overlap_of_one_channel_is_that_of_p_above_one_half():
    for k in (0, 1):
        row = measured(binary_case(REFERENCE["bin_prob"][k], REFERENCE["bin_label"][k])).classes["lesion"]
        assert row["dice"] == pytest.approx(REFERENCE["overlap.bin.dice"][k], abs=OWN)
        assert row["iou"] == pytest.approx(row["dice"] / (2 - row["dice"]), abs=1e-12)
    assert measured(binary_case(np.array([0.5]), np.array([1]))).classes["lesion"]["n_predicted"] == 0


def test_overlap_of_two_empty_masks_is_undefined_or_one_and_of_one_empty_mask_zero():
    empty = binary_case(np.array([0.1, 0.2]), np.array([0, 0]))
    assert measured(empty).classes["lesion"]["dice"] is None
    assert measured(empty).all["iou"] is None
    assert measured(empty, Settings(empty_dice="one")).classes["lesion"]["dice"] == 1.0
    assert measured(binary_case(np.array([0.1, 0.7]), np.array([0, 0]))).classes["lesion"]["dice"] == 0.0


def test_threshold_decides_softmax_classes_one_by_one():
    case = softmax_case(np.array([[0.4], [0.35], [0.25]]), np.array([0]))
    assert measured(case).classes["c0"]["n_predicted"] == 1
    assert measured(case, Settings(decision="threshold")).classes["c0"]["n_predicted"] == 0


def test_the_lowest_class_wins_a_tie():
    case = softmax_case(np.array([[0.2], [0.4], [0.4]]), np.array([2]))
    rows = measured(case).classes
    assert [rows[f"c{c}"]["n_predicted"] for c in range(3)] == [0, 1, 0]


@pytest.mark.parametrize("k", range(3))
def test_an_absent_class_is_counted_by_default_and_left_out_on_request(k):
    case = softmax_case(REFERENCE["mc_prob"][k], REFERENCE["mc_label"][k])
    counted, skipped = measured(case).all, measured(case, Settings(absent="skip")).all
    assert counted["ace"] == pytest.approx(REFERENCE["own.mc.average.M20"][k, 1:].mean(), abs=OWN)
    assert skipped["ace"] == pytest.approx(REFERENCE["absent.mc.ace.M20.case_mean_without_absent"][k], abs=OWN)
    assert (counted["n_classes"], skipped["n_classes"]) == ((3, 2) if k == 2 else (3, 3))


def test_background_enters_the_average_on_request():
    case = softmax_case(REFERENCE["mc_prob"][0], REFERENCE["mc_label"][0])
    found = measured(case, Settings(background="include")).all
    assert found["ace"] == pytest.approx(REFERENCE["own.mc.average.M20"][0].mean(), abs=OWN)
    assert found["n_classes"] == 4


def test_two_exclusive_classes_are_one_row_of_the_foreground():
    p = random_softmax(np.random.default_rng(1), 2, 500)
    y = np.random.default_rng(2).integers(0, 2, 500)
    found, alone = measured(softmax_case(p, y)), measured(binary_case(p[1], y))
    assert list(found.classes) == ["c1"]
    for key in ("ece", "ace", "mce", "brier", "nll", "dice"):
        assert found.all[key] == found.classes["c1"][key] == pytest.approx(alone.all[key], abs=1e-6)
    assert found.all["joint_nll"] == pytest.approx(found.all["nll"], abs=1e-15)
    assert found.all["joint_brier"] == pytest.approx(2 * found.all["brier"], abs=1e-6)
    assert found.all["top_ece"] == pytest.approx(alone.all["top_ece"], abs=1e-6)


def test_padding_is_left_out_of_calibration_and_kept_in_overlap_and_millilitres():
    rng = np.random.default_rng(3)
    p = np.zeros((3, 4, 6, 5), np.float32)
    p[0] = 1.0
    box = Box((1, 3), (2, 5), (0, 4))
    inner = random_softmax(rng, 3, 2 * 3 * 4).reshape(3, 2, 3, 4)
    p[(slice(None), *box.slices)] = inner
    y = rng.integers(0, 3, p.shape[1:])
    whole = measured(softmax_case(p, y, predicted=box, spacing=2.0))
    crop = measured(softmax_case(inner, y[box.slices]))
    full = measured(softmax_case(p, y, spacing=2.0))
    for name, row in whole.classes.items():
        for key in ("n_voxels", "ece", "ace", "mce", "brier", "nll", "volume_bias", "at_zero", "adaptive_ece"):
            assert row[key] == pytest.approx(crop.classes[name][key], abs=1e-12)
        for key in ("n_label", "n_predicted", "dice", "iou", "volume_bias_ml"):
            assert row[key] == pytest.approx(full.classes[name][key], abs=1e-12)
    bias = (p[1].astype(float) - (y == 1)).sum() * 0.008
    assert whole.classes["c1"]["volume_bias_ml"] == pytest.approx(bias, abs=1e-12)
    assert whole.all["top_ece"] == pytest.approx(crop.all["top_ece"], abs=1e-12)


def test_ignored_voxels_are_left_out_of_everything():
    rng = np.random.default_rng(4)
    p, y, ignored = rng.random(60).astype(np.float32), rng.integers(0, 2, 60), rng.random(60) < 0.3
    case = binary_case(p, np.where(ignored, 0, y))
    labels = LabelMap(case.labels.codes, case.labels.members, ignored.reshape(case.labels.codes.shape))
    with_ignored = type(case)(case.id, case.group, case.space, case.volume, labels)
    assert measured(with_ignored).classes == measured(binary_case(p[~ignored], y[~ignored])).classes


def test_millilitres_need_spacing():
    row = measured(binary_case(np.array([0.3, 0.9]), np.array([0, 1]), spacing=None)).classes["lesion"]
    assert row["volume_bias_ml"] is None
    assert row["volume_bias"] is not None


def test_saturation_is_counted_exactly():
    p = np.array([0, 0, 0, 5e-7, 1e-6, 0.5, 1 - 2e-6, 1 - 5e-7, 1, 1], np.float32)
    y = np.array([0, 1, 0, 1, 0, 1, 1, 1, 0, 1])
    row = measured(binary_case(p, y)).classes["lesion"]
    assert [row[key] for key in ("at_zero", "at_one", "near_zero", "near_one")] == [
        0.3,
        0.2,
        (p.astype(float) < 1e-6).mean(),
        (p.astype(float) > 1 - 1e-6).mean(),
    ]
    assert (row["wrong_at_zero"], row["wrong_at_one"]) == (1, 1)


def test_log_scores_use_the_floor_of_the_stored_type():
    row = measured(binary_case(np.array([0.0, 1.0, 1.0]), np.array([1, 0, 1]))).classes["lesion"]
    assert row["nll"] == pytest.approx((149 + 25) * np.log(2) / 3, rel=1e-12)


def test_log_scores_from_logits_have_no_floor():
    z = np.array([[-300.0, 400.0, 3.0, -2.0]])
    y = np.array([1, 0, 1, 0])
    row = measured(binary_case(z[0], y, values="logits")).classes["lesion"]
    assert row["nll"] == pytest.approx((300 + 400 + np.log1p(np.exp(-3)) + np.log1p(np.exp(-2))) / 4, rel=1e-12)
    three = np.array([[0.0, -800.0], [900.0, 0.0], [1.0, 2.0]])
    joint = measured(softmax_case(three, np.array([0, 0]), values="logits")).all["joint_nll"]
    assert joint == pytest.approx((900 + 800 + np.logaddexp(0, 2)) / 2, rel=1e-12)


def test_logits_and_their_probabilities_measure_alike():
    for k in range(3):
        stored = measured(softmax_case(REFERENCE["mc_prob"][k], REFERENCE["mc_label"][k])).all
        exact = measured(softmax_case(REFERENCE["mc_logit"][k], REFERENCE["mc_label"][k], values="logits")).all
        for key in ("ece", "ace", "brier", "nll", "smooth_ece", "joint_nll", "top_ece"):
            assert exact[key] == pytest.approx(stored[key], abs=2e-7)


def test_every_source_is_measured_on_the_same_voxels():
    rng = np.random.default_rng(5)
    case = binary_case(rng.random(300).astype(np.float32), rng.integers(0, 2, 300), roi=rng.random(300) < 0.5)
    sources = {
        "raw": lambda raw: Scores(raw, False, 2.0**-149, 2.0**-25),
        "cooler": lambda raw: scores_of_log_odds(0.5 * np.log(raw / (1.0 - raw.astype(float)))),
    }
    found = measure_case(case, sources, Settings())
    assert list(found) == ["raw", "cooler"]
    assert found["raw"].classes["lesion"]["n_voxels"] == found["cooler"].classes["lesion"]["n_voxels"]
    assert found["raw"].classes["lesion"]["brier"] > found["cooler"].classes["lesion"]["brier"]


@pytest.mark.parametrize("spread", [1.0, 12.0])
def test_threads_change_no_digit(spread, monkeypatch):
    monkeypatch.setattr(measures, "BLOCK_VOXELS", 1000)
    rng = np.random.default_rng(6)
    case = softmax_case(random_softmax(rng, 4, 9500, spread), rng.integers(0, 4, 9500))
    one, three = measured(case), measured(case, threads=3)
    assert one.classes == three.classes
    assert one.all == three.all
    assert all(
        np.array_equal(getattr(one.pooled, name), getattr(three.pooled, name)) for name in ("n", "hits", "p", "sums")
    )


def test_measures_are_small_and_travel_between_processes():
    rng = np.random.default_rng(7)
    found = measured(softmax_case(random_softmax(rng, 4, 4000), rng.integers(0, 4, 4000)))
    assert pickle.loads(pickle.dumps(found)).classes == found.classes
    assert len(pickle.dumps(found)) < 180_000
    assert len(pickle.dumps(found.slim())) < 12_000


def test_a_case_without_labels_or_voxels_is_refused():
    case = binary_case(np.array([0.3, 0.9]), np.array([0, 1]), roi=np.array([False, False]))
    with pytest.raises(NothingToMeasure, match=r"^case: the region of interest and the ignore label leave no voxel"):
        measured(case)
    with pytest.raises(NoTruth, match=r"^case: no label volume"):
        measured(type(case)(case.id, case.group, case.space, case.volume))


@pytest.mark.parametrize("bins", [0, 1201, -3])
def test_impossible_numbers_of_bins_are_usage_errors(bins):
    with pytest.raises(BadBins, match=f"bins = {bins} is not allowed"):
        Settings(bins=bins)


def test_one_bin_makes_ece_the_size_of_the_volume_bias():
    row = measured(binary_case(REFERENCE["bin_prob"][0], REFERENCE["bin_label"][0]), Settings(bins=1)).classes["lesion"]
    assert row["ece"] == row["ace"] == row["mce"] == pytest.approx(abs(row["volume_bias"]), abs=1e-15)


def test_unknown_settings_list_the_known_ones():
    with pytest.raises(UnknownSetting, match="closed = 'both' is not known; it is one of right, left"):
        Settings(closed="both")


@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_a_source_never_sees_a_block_without_counted_voxels(keep, monkeypatch):
    monkeypatch.setattr(measures, "BLOCK_VOXELS", 100)
    rng = np.random.default_rng(8)
    roi = np.concatenate([np.zeros(200, bool), rng.random(100) < keep, np.ones(50, bool)])
    case = binary_case(rng.random(350).astype(np.float32), rng.integers(0, 2, 350), roi=roi)
    sizes = []

    def source(raw):
        sizes.append(raw.shape[1])
        return Scores(raw, False, 2.0**-149, 2.0**-25)

    measure_case(case, {"raw": source}, Settings())
    assert 0 not in sizes
    assert sum(sizes) == roi.sum()


def test_smooth_ece_is_within_the_bisection_error_of_the_published_package():
    row = measured(binary_case(REFERENCE["bin_prob"][0], REFERENCE["bin_label"][0])).classes["lesion"]
    assert row["smooth_ece"] == pytest.approx(float(REFERENCE["relplot.smECE.bin0"]), abs=1e-3)


REGIONS = LabelSpace(
    tuple(Channel(f"c{i}", frozenset({i})) for i in range(4)),
    "softmax",
    regions=(Channel("core", frozenset({1, 3})), Channel("whole", frozenset({1, 2, 3}))),
)


@pytest.mark.parametrize("kind", ["probabilities", "logits"])
@pytest.mark.parametrize("spread", [1.0, 12.0, 900.0])
def test_a_region_is_measured_as_the_sum_of_its_channels(kind, spread):
    """The same region as a single float64-exact channel would give, on voxels whose sums are exact in float32."""
    rng = np.random.default_rng(51)
    z = rng.normal(scale=spread, size=(4, 3000)).astype(np.float32)
    p = np.exp(z - z.max(axis=0).astype(np.float64))
    p /= p.sum(axis=0)
    labels = (z + rng.gumbel(size=z.shape)).argmax(axis=0)
    array = z if kind == "logits" else p.astype(np.float32)
    case = replace(softmax_case(array, labels, values=kind), space=REGIONS)
    source = partial(counted_scores, values=kind, stored=case.volume.stored, exclusive=True)
    found = measure_case(case, {"raw": source}, Settings())["raw"]
    assert list(found.classes) == ["c0", "c1", "c2", "c3", "core", "whole"]
    wide = p if kind == "logits" else array.astype(np.float64)
    for name, parts in (("core", [1, 3]), ("whole", [1, 2, 3])):
        row, of, y = found.classes[name], wide[parts].sum(axis=0), np.isin(labels, parts)
        rest = wide[[c for c in range(4) if c not in parts]].sum(axis=0)
        assert row["brier"] == pytest.approx(((of - y) ** 2).mean(), abs=1e-12)
        assert row["volume_bias"] == pytest.approx((of - y).mean(), abs=1e-12)
        k = np.ceil(of * 20).astype(int).clip(1, 20) - 1
        gaps = [abs((of - y)[k == m].sum()) for m in range(20)]
        assert row["ece"] == pytest.approx(sum(gaps) / of.size, abs=1e-12)
        hard = np.isin(array.argmax(axis=0), parts)
        assert row["n_predicted"] == hard.sum()
        assert row["dice"] == pytest.approx(2 * (hard & y).sum() / (hard.sum() + y.sum()), rel=1e-12)
        likelihood = np.maximum(np.where(y, of, rest), 2.0**-149)
        if spread < 900.0 or kind == "probabilities":
            assert row["nll"] == pytest.approx(-np.log(likelihood).mean(), rel=1e-6)
    averaged = [found.classes[name]["ece"] for name in ("c1", "c2", "c3", "core", "whole")]
    assert found.all["ece"] == pytest.approx(np.mean(averaged), rel=1e-12)
    plain = measure_case(replace(case, space=softmax_case(array, labels).space), {"raw": source}, Settings())["raw"]
    assert {key: found.all[key] for key in ("joint_nll", "joint_brier", "top_ece", "accuracy")} == {
        key: plain.all[key] for key in ("joint_nll", "joint_brier", "top_ece", "accuracy")
    }


def test_regions_are_decided_one_by_one_by_threshold_if_so_asked():
    p = np.array([[0.4], [0.3], [0.0], [0.3]], np.float32)
    case = replace(softmax_case(p, np.array([1])), space=REGIONS)
    source = partial(counted_scores, values="probabilities", stored=case.volume.stored, exclusive=True)
    by_argmax, by_threshold = (
        measure_case(case, {"raw": source}, Settings(decision=rule))["raw"].classes["core"]["n_predicted"]
        for rule in ("argmax", "threshold")
    )
    assert (by_argmax, by_threshold) == (0, 1)


@pytest.mark.parametrize(
    ("values", "words"),
    [({1}, "must join some"), ({0, 1, 2, 3}, "must join some"), ({1, 7}, "must join whole classes")],
)
def test_a_region_joins_some_whole_classes(values, words):
    with pytest.raises(BadClassTable, match=words):
        replace(REGIONS, regions=(Channel("r", frozenset(values)),))
