"""Fits end to end: results, folds, merging, warnings, refusals, artifacts."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segcal_cli.calibration import patients
from segcal_cli.calibration.calibrator import Calibrator
from segcal_cli.calibration.fit import AllConstant, AllHard, CalibrationFit, NothingGiven, OtherValues
from segcal_cli.calibration.fitting import InvertedConfidence
from segcal_cli.calibration.result import FitResult, NotACalibrator, calibrator_from, to_artifact_parts
from segcal_cli.calibration.spec import BadOption, FitSpec
from segcal_cli.calibration.statistics import NothingToFit, NoTruthToFit, TwiceTheSameCase
from segcal_cli.core.artifact import Artifact, Header
from segcal_cli.core.case import Case
from segcal_cli.core.errors import UsageError
from segcal_cli.core.estimator import Estimator
from segcal_cli.core.labels import LabelSpace
from segcal_cli.core.scores import log_softmax
from segcal_cli.core.volume import Box, Stored
from segcal_cli.metrics.columns import all_row, class_rows
from segcal_cli.metrics.measures import Settings, measure_case
from tests.calibration.builders_cases import binary_cases, case_of, regions, softmax_cases, space_of

FIT = np.load(Path(__file__).parent / "fixtures" / "fit.npz")
QUIET = FitSpec(split_kind="out-of-fold")


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for what these tests claim, and ten times faster."""
    monkeypatch.setattr(patients, "RESAMPLES", 100)


def run(cases: Iterable[Case], spec: FitSpec = QUIET, *, shards: int = 1, threads: int = 1) -> FitResult:
    """All passes over cases that are dealt to shards, merged last to first."""
    cases = list(cases)
    step = CalibrationFit(spec, cases[0].space, cases[0].volume.values, threads)
    while isinstance(step, Estimator):
        states = []
        for shard in range(shards):
            state = step.empty()
            for case in cases[shard::shards]:
                state = step.update(state, case)
            states.append(pickle.loads(pickle.dumps(state)))
        merged = states.pop()
        while states:
            merged = step.merge(states.pop(), merged)
        step = step.finish(merged)
    return step


def reference_case(kind: str) -> Case:
    if kind == "binary":
        return case_of(FIT["fit_z"][np.newaxis], FIT["fit_y"][np.newaxis].astype(bool), space_of(1, "sigmoid"))
    return case_of(FIT["fit_Z"].T, FIT["fit_Y"], space_of(4))


def artifact_of(result: FitResult) -> Artifact:
    results, arrays = to_artifact_parts(result)
    header = Header(
        kind="calibrate",
        method=result.spec.method,
        space=result.space,
        values=result.values,
        spec=json.loads(json.dumps(result.spec.to_json())),
        case_ids=result.case_ids,
        group_ids=result.group_ids,
        case_digests={},
        fit_input_digest="",
        guarantee=result.guarantee,
        results=json.loads(json.dumps(results, allow_nan=False)),
    )
    return Artifact(header, arrays)


def test_parameters_of_the_reference_sets():
    assert run([reference_case("binary")]).parameters["temperature"] == pytest.approx(2.2014442559, abs=1e-6)
    platt = run([reference_case("binary")], replace(QUIET, method="platt"))
    assert platt.parameters["a"]["c0"] == pytest.approx(0.5333824887, abs=1e-6)
    assert platt.parameters["b"]["c0"] == pytest.approx(0.4115134287, abs=1e-6)
    assert platt.objective["after"] == pytest.approx(0.4973587988, abs=1e-8)  # float32 logits
    assert platt.threshold["c0"] == pytest.approx(1 / (1 + np.exp(0.4115134287 / 0.5333824887)), abs=1e-6)
    multi = run([reference_case("softmax")])
    assert multi.parameters["temperature"] == pytest.approx(2.0875118294, abs=1e-6)
    assert multi.objective["after"] == pytest.approx(0.9996443447, abs=1e-8)
    assert multi.objective["gradient"] <= 1e-8


def test_probabilities_and_logits_of_one_model_have_the_same_temperature():
    def of_probabilities(case: Case) -> Case:
        array = case.volume.array.astype(np.float64)
        p = np.exp(log_softmax(array)) if case.space.exclusive else 1 / (1 + np.exp(-array))
        return replace(case, volume=replace(case.volume, array=p.astype(np.float32), values="probabilities"))

    for kind in ("binary", "softmax"):
        case = reference_case(kind)
        logits, probabilities = run([case]), run([of_probabilities(case)])
        assert probabilities.parameters["temperature"] == pytest.approx(logits.parameters["temperature"], rel=1e-4)


@pytest.mark.parametrize("kind", ["binary", "softmax"])
def test_doubling_all_logits_doubles_the_temperature(kind: str):
    case = reference_case(kind)
    doubled = replace(case, volume=replace(case.volume, array=case.volume.array * 2))
    assert run([doubled]).parameters["temperature"] == pytest.approx(
        2 * run([case]).parameters["temperature"], rel=1e-6
    )


def test_swapping_two_exclusive_classes_keeps_slope_and_temperature_and_negates_the_offset():
    z, y = FIT["fit_z"], FIT["fit_y"]
    one = case_of(np.stack([np.zeros_like(z), z]), y, space_of(2))
    other = case_of(np.stack([z, np.zeros_like(z)]), 1 - y, space_of(2))
    assert run([other]).parameters["temperature"] == pytest.approx(run([one]).parameters["temperature"], rel=1e-6)
    spec = replace(QUIET, method="platt")
    a, b = run([one], spec).parameters, run([other], spec).parameters
    assert b["a"]["c1"] == pytest.approx(a["a"]["c1"], rel=1e-6)
    assert b["b"]["c1"] == pytest.approx(-a["b"]["c1"], rel=1e-5)


def test_a_shift_of_all_logits_of_a_voxel_keeps_the_fit():
    case = reference_case("softmax")
    rounded = np.round(case.volume.array * 16) / 16
    shift = np.round(np.random.default_rng(0).normal(0, 20, rounded.shape[1:]))
    fits = [
        run(
            [replace(case, volume=replace(case.volume, array=(rounded + s).astype(np.float32)))],
            replace(QUIET, method=m),
        )
        for m in ("temperature", "platt")
        for s in (0.0, shift)
    ]
    for before, after in ((fits[0], fits[1]), (fits[2], fits[3])):
        np.testing.assert_allclose(after.calibrator.rows, before.calibrator.rows, rtol=1e-9)


@pytest.mark.parametrize("method", ["temperature", "platt", "beta", "isotonic", "histogram"])
@pytest.mark.parametrize("kind", ["binary", "softmax"])
def test_shards_merged_in_any_order_and_threads_give_the_same_bytes(method: str, kind: str):
    cases = binary_cases(7, 1500, 0) if kind == "binary" else softmax_cases(7, 800, 0)
    spec = replace(QUIET, method=method)
    serial, sharded = run(cases, spec), run(cases[::-1], spec, shards=3, threads=2)
    assert json.dumps(serial.results()) == json.dumps(sharded.results())
    assert serial.arrays.keys() == sharded.arrays.keys()
    assert all(serial.arrays[name].tobytes() == sharded.arrays[name].tobytes() for name in serial.arrays)
    assert serial.passes == (1 if kind == "binary" else 2)


@pytest.mark.parametrize(
    "method", ["temperature", "platt", "beta", "isotonic", "histogram", "vector", "matrix", "dirichlet"]
)
@pytest.mark.parametrize("classes", [1, 3])
def test_an_artifact_gives_back_the_calibrator(method: str, classes: int):
    if classes == 1 and method in ("vector", "matrix", "dirichlet"):
        pytest.skip("these are for a softmax")
    cases = binary_cases(3, 500, 0) if classes == 1 else softmax_cases(3, 500, 0, classes=3)
    result = run(cases, replace(QUIET, method=method))
    calibrator = calibrator_from(artifact_of(result))
    array, stored = cases[0].volume.array, cases[0].volume.stored
    np.testing.assert_array_equal(
        calibrator.apply(array, "logits", stored).array, result.calibrator.apply(array, "logits", stored).array
    )


@pytest.mark.parametrize("method", ["beta", "isotonic", "histogram"])
def test_methods_with_more_freedom_gain_out_of_fold_on_distorted_predictions(method: str):
    for cases in (binary_cases(5, 4000, 2), softmax_cases(5, 2000, 2)):
        summary = run(cases, replace(QUIET, method=method)).summary
        assert summary is not None
        assert summary["improved"]
        assert summary["after"]["micro"]["all"]["ece"] < summary["before"]["micro"]["all"]["ece"] / 2


@pytest.mark.parametrize("method", ["isotonic", "histogram"])
def test_a_class_that_no_case_holds_leaves_a_curve_as_it_is(method: str):
    rng = np.random.default_rng(0)
    z = rng.normal(0, 2, (2, 900)).astype(np.float32)
    y = np.stack([rng.random(900) < 1 / (1 + np.exp(-0.5 * z[0])), np.zeros(900, dtype=bool)])
    result = run(
        [case_of(z, y, regions({1}, {2}))],
        replace(QUIET, method=method, histogram_bins=8 if method == "histogram" else 20),
    )
    assert "r1: no voxel of it in any case; left as it is" in result.warnings
    again = calibrator_from(artifact_of(result))
    written = again.apply(z.reshape(2, 1, 1, -1), "logits", Stored("float32")).array
    np.testing.assert_allclose(written[1].ravel(), 1 / (1 + np.exp(-z[1].astype(np.float64))), rtol=1e-6)


def test_other_artifacts_are_no_calibrators():
    artifact = artifact_of(run(binary_cases(2, 300, 0)))
    with pytest.raises(NotACalibrator, match="this is a cluster artifact"):
        calibrator_from(replace(artifact, header=replace(artifact.header, kind="cluster")))


@pytest.mark.parametrize("method", ["temperature", "platt"])
def test_the_summary_from_sketches_is_that_of_all_voxels(method: str):
    """Bins of z that straddle an edge of p go to one side, so ECE moves by up to 3e-4 and ACE by up to 1e-3."""
    cases = binary_cases(4, 100_000, 1)
    result = run(cases, replace(QUIET, method=method, folds=0))
    assert result.summary is not None
    raw = Calibrator("temperature", result.space, np.ones((1, 1)))
    sources = {
        "before": lambda slab: raw.scores(slab, "logits", Stored("float32")),
        "after": lambda slab: result.calibrator.scores(slab, "logits", Stored("float32")),
    }
    measured = [measure_case(case, sources, Settings()) for case in cases]
    for phase in ("before", "after"):
        pooled = measured[0][phase].pooled
        for one in measured[1:]:
            pooled = pooled + one[phase].pooled
        counts = pooled.counts()
        rows = class_rows(pooled, counts, None, Settings())
        together = all_row(pooled.averaged, rows, counts, Settings())
        micro = result.summary[phase]["micro"]
        for key, tolerance in (
            ("nll", 1e-7),
            ("brier", 1e-5),
            ("ece", 3e-4),
            ("ace", 1e-3),
            ("mce", 2e-3),
            ("dice", 1e-3),
        ):
            assert micro["classes"]["c0"][key] == pytest.approx(rows["c0"][key], abs=tolerance), key
            macro = np.mean([one[phase].classes["c0"][key] for one in measured])
            assert result.summary[phase]["macro"]["classes"]["c0"][key] == pytest.approx(macro, abs=2 * tolerance), key
        for key in ("joint_nll", "joint_brier", "accuracy"):
            assert micro["all"][key] == pytest.approx(together[key], abs=1e-3)


def test_temperature_leaves_dice_to_the_last_voxel():
    for cases in (binary_cases(4, 5000, 1), softmax_cases(4, 2000, 1)):
        summary = run(cases).summary
        assert summary is not None
        for average in ("micro", "macro"):
            for name, row in summary["before"][average]["classes"].items():
                assert summary["after"][average]["classes"][name]["dice"] == row["dice"]


def test_every_patient_is_measured_with_parameters_fitted_without_its_fold():
    cases = [replace(case, group=f"p{i // 2}") for i, case in enumerate(binary_cases(6, 2000, 3))]
    result = run(cases, replace(QUIET, method="platt", folds=5))
    assert result.summary is not None
    assert result.summary["folds"] == 3
    assert result.summary["evaluated_on"] == "cross-validation"
    after = []
    for group in ("p0", "p1", "p2"):
        rest = run([case for case in cases if case.group != group], replace(QUIET, method="platt", folds=0))
        for case in cases:
            if case.group == group:
                sources = {"after": lambda slab, c=rest.calibrator: c.scores(slab, "logits", Stored("float32"))}
                after.append(measure_case(case, sources, Settings())["after"].classes["c0"]["nll"])
    assert result.summary["after"]["micro"]["classes"]["c0"]["nll"] == pytest.approx(np.mean(after), abs=1e-8)


def test_one_scope_for_all_regions_fits_all_channels_together():
    rng = np.random.default_rng(0)
    z = rng.normal(-1, 3, (2, 4000)).astype(np.float32)
    y = rng.random(z.shape) < 1 / (1 + np.exp(-z.astype(np.float64) * [[0.4], [0.9]]))
    case = case_of(z, y, regions({1}, {2}))
    shared = run([case], replace(QUIET, scope="shared"))
    joined = run([case_of(z.reshape(1, -1), y.reshape(1, -1), space_of(1, "sigmoid"))])
    assert shared.parameters["temperature"] == pytest.approx(joined.parameters["temperature"], rel=1e-9)
    apart = run([case]).parameters["temperature"]
    assert apart["r0"] > shared.parameters["temperature"] > apart["r1"]
    platt = run([case], replace(QUIET, scope="shared", method="platt"))
    assert (platt.calibrator.rows[0] == platt.calibrator.rows[1]).all()


def test_weight_case_counts_a_small_case_like_a_large_one():
    large, small = binary_cases(1, 8000, 0, slope=0.4)[0], binary_cases(1, 500, 1, slope=1.0)[0]
    cases = [large, replace(small, id="small", group="small")]
    by_voxel, by_case = run(cases), run(cases, replace(QUIET, weight="case"))
    assert by_case.parameters["temperature"] < by_voxel.parameters["temperature"]
    assert small.labels is not None
    labels = small.labels.codes.reshape(1, -1).astype(bool)
    tiled = case_of(np.tile(small.volume.array.reshape(1, -1), 16), np.tile(labels, 16), small.space, name="small")
    assert run([large, tiled]).parameters["temperature"] == pytest.approx(by_case.parameters["temperature"], rel=1e-6)


def test_padding_is_left_out_of_the_fit():
    case = binary_cases(1, 1000, 0)[0]
    assert case.labels is not None
    shape = (1, 2, 1000)
    array = np.full((1, *shape), -100.0, dtype=np.float32)
    array[0, 0, 0] = case.volume.array.ravel()
    labels = np.zeros((1, 2000), dtype=bool)
    labels[0, :1000] = case.labels.codes.ravel()
    padded = case_of(array, labels, case.space, predicted=Box((0, 1), (0, 1), (0, 1000)))
    assert run([padded]).parameters == run([replace(case, id="a", group="a")]).parameters
    assert run([padded]).facts["padding_share"] == 0.5


def test_loss_brier_is_fitted_and_reported():
    for cases in (binary_cases(3, 3000, 0), softmax_cases(3, 1500, 0)):
        result = run(cases, replace(QUIET, loss="brier"))
        assert result.objective["loss"] == "brier"
        assert result.objective["after"] < result.objective["before"]


def test_no_summary_means_one_pass_and_null():
    result = run(softmax_cases(3, 500, 0), replace(QUIET, summary=False))
    assert result.summary is None
    assert result.passes == 1
    assert result.guarantee == "Calibrated on 3 cases of 3 patients by NLL; no finite-sample guarantee."


def test_the_guarantee_is_one_sentence_with_both_losses():
    result = run(binary_cases(4, 2000, 0))
    assert result.guarantee.startswith(
        "Calibrated on 4 cases of 4 patients by NLL; no finite-sample guarantee. Out of fold NLL "
    )


def test_identity_data_have_temperature_one_within_the_bootstrap_interval():
    low, high = run(binary_cases(10, 2000, 5, slope=1.0, offset=0.0)).interval["temperature"]
    assert low < 1.0 < high


@pytest.mark.parametrize(
    ("cases", "spec", "text"),
    [
        (binary_cases(2, 500, 0), FitSpec(), "Were these cases held out of training?"),
        (binary_cases(2, 500, 0), FitSpec(split_kind="in-sample"), "in-sample: these are predictions"),
        (binary_cases(1, 500, 0), QUIET, "only one patient"),
        (binary_cases(2, 500, 0), replace(QUIET, folds=0), "the summary is in-sample"),
        (binary_cases(4, 2000, 0, slope=-0.5), QUIET, "T reached its bound, 20: higher confidence does not go"),
        (binary_cases(3, 4000, 0), replace(QUIET, method="platt"), "c0: Dice "),
        (binary_cases(2, 300, 1, slope=1.0, offset=0.0), replace(QUIET, method="platt"), "no gain: NLL "),
    ],
)
def test_dangers_are_named_in_a_warning(cases: list[Case], spec: FitSpec, text: str):
    assert any(text in warning for warning in run(cases, spec).warnings)


def test_no_warning_where_all_is_well():
    assert run(binary_cases(6, 4000, 0)).warnings == ()


def test_a_class_of_one_patient_is_left_as_it_is_and_named():
    rng = np.random.default_rng(0)
    cases = []
    for i in range(3):
        z = rng.normal(0, 3, (2, 1000)).astype(np.float32)
        y = rng.random(z.shape) < 1 / (1 + np.exp(-z * 0.5))
        y[1] &= i == 0
        cases.append(case_of(z, y, regions({1}, {2}), name=f"case{i}"))
    result = run(cases, replace(QUIET, method="platt"))
    assert result.parameters["a"]["r1"] == 1.0
    assert result.parameters["b"]["r1"] == 0.0
    assert result.interval["a"]["r1"] is None
    assert "r1: it occurs in one patient only; left as it is" in result.warnings
    for case in cases:
        assert case.labels is not None
        case.labels.members[1] = False
    assert "r1: no voxel of it in any case; left as it is" in run(cases).warnings


def test_labels_made_from_the_predictions_reach_the_bound_with_the_reason():
    z = np.random.default_rng(0).normal(0, 1, (1, 2000)).astype(np.float32)
    result = run([case_of(z, z > 0, space_of(1, "sigmoid"))])
    assert result.parameters["temperature"] == pytest.approx(0.05)
    assert any("the labels are separable by the prediction" in warning for warning in result.warnings)


def test_zeros_on_true_voxels_are_counted():
    p = np.array([[0.0, 0.0, 0.7, 0.2, 0.9, 0.4]], dtype=np.float32)
    y = np.array([[1, 0, 1, 0, 1, 0]], dtype=bool)
    result = run([case_of(p, y, space_of(1, "sigmoid"), "probabilities")])
    assert any(w.startswith("c0: 1 voxel of the true class has") and "103 nats" in w for w in result.warnings)


def test_coarse_types_are_named():
    p = np.random.default_rng(0).random((1, 500)).astype(np.float16).astype(np.float32)
    case = case_of(p, p > 0.4, space_of(1, "sigmoid"), "probabilities", stored=Stored("float16"))
    assert any("float16 probabilities: logits beyond 7.6 are lost" in warning for warning in run([case]).warnings)


def test_a_temperature_of_one_is_noted():
    """The labels of softly certain voxels are balanced exactly as sigmoid(z) says."""
    z = np.tile(np.log([3.0, 1 / 3]), 500)
    y = np.zeros(1000, dtype=bool)
    y[::2], y[1::2] = np.arange(500) % 4 < 3, np.arange(500) % 4 < 1
    assert (
        "already calibrated in the sense of NLL"
        in run([case_of(z[np.newaxis], y[np.newaxis], space_of(1, "sigmoid"))]).notes
    )


def test_inverted_slopes_are_refused_unless_allowed():
    cases = binary_cases(3, 2000, 0, slope=-0.5)
    with pytest.raises(InvertedConfidence, match=r"c0: the fitted slope is -0\.4.*--allow-inverted"):
        run(cases, replace(QUIET, method="platt"))
    result = run(cases, replace(QUIET, method="platt", allow_inverted=True))
    assert result.parameters["a"]["c0"] < 0
    assert result.threshold["c0"] is None


def test_what_cannot_be_fitted_is_refused():
    space = space_of(1, "sigmoid")
    constant = case_of(np.full((1, 50), 0.3), np.zeros((1, 50), dtype=bool), space, "probabilities")
    hard = case_of(np.arange(50)[np.newaxis] % 2, np.zeros((1, 50), dtype=bool), space, "probabilities")
    good = binary_cases(1, 100, 0)[0]
    with pytest.raises(AllConstant):
        run([constant])
    with pytest.raises(AllHard, match=r"^1 of 1 prediction holds only 0 and 1"):
        run([hard])
    with pytest.raises(NothingGiven):
        CalibrationFit(QUIET, space, "logits").finish(CalibrationFit(QUIET, space, "logits").empty())
    with pytest.raises(NoTruthToFit, match=r"^case000: no label volume"):
        run([replace(good, labels=None)])
    with pytest.raises(NothingToFit):
        run([replace(good, roi=np.zeros(good.volume.grid.shape, dtype=bool))])
    with pytest.raises(TwiceTheSameCase, match=r"^case000: "):
        run([good, good])
    with pytest.raises(OtherValues, match="holds probabilities, and the fit is on logits"):
        run([good, replace(constant, id="b")])


@pytest.mark.parametrize(
    ("options", "space", "text"),
    [
        (
            {"method": "vector"},
            space_of(3, "sigmoid"),
            "does not fit sigmoid regions; methods that fit: temperature, platt, beta",
        ),
        (
            {"method": "vector", "loss": "soft-ace"},
            space_of(3),
            "--loss soft-ace: vector cannot be fitted to it; methods that fit: temperature, platt, beta",
        ),
        ({"ace_weight": 2.0}, space_of(3), "--ace-weight 2.0: it is for --loss nll\\+ace"),
        ({"loss": "nll+ace", "ace_weight": 0.0}, space_of(3), "--ace-weight 0.0: it is more than 0"),
        (
            {"loss": "soft-ace", "scope": "shared"},
            space_of(3, "sigmoid"),
            "--scope shared: --loss soft-ace is that of one",
        ),
        ({"scope": "shared"}, space_of(3), "it is for sigmoid regions"),
        ({"method": "isotonic", "scope": "shared"}, space_of(3, "sigmoid"), "fit: temperature, platt, beta"),
        ({"odir": 0.1}, space_of(3), "--odir 0.1: it is for --method dirichlet"),
        ({"method": "temperature", "refine": 2}, space_of(3), "--refine 2: it is for --method vector, matrix"),
        ({"binning": "width"}, space_of(3), "--binning width: it is for --method histogram"),
        ({"allow_inverted": True}, space_of(3), "^--allow-inverted: it is for --method platt, beta$"),
        ({"nesting": "none"}, space_of(3), "--nesting none: it is for sigmoid regions, and this is a softmax"),
        ({"voxels": 9, "loss": "soft-ace"}, space_of(3, "sigmoid"), "--voxels 9: it is for --method vector"),
    ],
)
def test_methods_losses_and_scopes_that_do_not_fit_are_usage_errors(options: dict, space: LabelSpace, text: str):
    with pytest.raises(UsageError, match=text):
        CalibrationFit(replace(QUIET, **options), space, "logits")


def test_the_sample_of_a_softmax_temperature_that_is_fitted_to_the_soft_error_has_its_size():
    spec = replace(QUIET, loss="soft-ace", voxels=40)
    cases = softmax_cases(3, 400, 0)
    few, most = (run(cases, replace(spec, voxels=voxels)).parameters["temperature"] for voxels in (40, 20_000))
    assert few != most


@pytest.mark.parametrize("options", [{"folds": 1}, {"folds": -2}, {"weight": "patient"}, {"nesting": "sort"}])
def test_options_without_meaning_are_refused(options: dict):
    with pytest.raises(BadOption):
        FitSpec(**options)
