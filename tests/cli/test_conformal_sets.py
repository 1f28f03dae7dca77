"""``segcal conformal-sets fit|apply``: what is written and said, for whole inputs and for every kind of trouble."""

from __future__ import annotations

import json
import math
import re
import shutil

import nibabel
import numpy as np
import pytest
from PIL import Image

from segcal_cli.io.artifacts import read_artifact
from tests.cli.builders import read_rows, segcal, softmax, write_classes, write_npz, write_volume
from tests.cli.builders_sets import (
    GRID,
    arguments,
    name_of,
    thresholds,
    voxels,
    write_images,
    write_label_maps,
    write_pngs,
)
from tests.confidence.builders_synth2d import fixture, synth2d

CAL, NEW = tuple(range(60, 120)), tuple(range(209, 221))

COLUMNS = (
    "case, unit, target, stratum, alpha, alpha_inner, alpha_outer, lambda_inner, lambda_outer, predicted_voxels, "
    "inner_voxels, outer_voxels, predicted_ml, inner_ml, outer_ml, weight, outlier_p, outlier_feature, flags"
)

NONE = ("--joint", "none")


def fit(root, output, *options):
    return segcal("conformal-sets", "fit", *arguments(root), "-o", output, *options)


def apply(artifact, root, output, *options, values="logits"):
    return segcal(
        "conformal-sets", "apply", artifact, *arguments(root, labels=False, values=values), "-o", output, *options
    )


@pytest.fixture(scope="module")
def cal(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("cal"), CAL)


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("new"), NEW)


@pytest.fixture(scope="module")
def artifact(cal, tmp_path_factory):
    """Distances, each side at alpha 0.1."""
    path = tmp_path_factory.mktemp("fitted") / "sets.npz"
    assert fit(cal, path, *NONE).code == 0
    return path


# What fit writes and says


def test_fit_says_the_thresholds_in_mm_and_what_they_promise(cal, tmp_path):
    said = fit(cal, tmp_path / "a.npz", *NONE, "--json")
    assert said.code == 0
    inner, outer = thresholds("distance", CAL, 0.1)
    (row,) = said.document["result"]["thresholds"]
    assert (row["lambda_inner"], row["lambda_outer"]) == (pytest.approx(inner), pytest.approx(outer))
    assert f"inner     distance > {inner:.6g} mm at alpha 0.1" in said.stderr
    assert "if there is any lesion, all of it is in the outer set (90 %)" in said.stderr
    assert said.closing == "segcal: 60 cases, 60 done (exit 0)"


def test_the_same_cases_give_the_same_bytes_whatever_the_jobs(cal, artifact, tmp_path):
    assert fit(cal, tmp_path / "a.npz", *NONE, "-j", "2").code == 0
    assert (tmp_path / "a.npz").read_bytes() == artifact.read_bytes()


def test_inspect_gives_every_key_at_any_alpha(artifact):
    said = segcal("inspect", artifact, "--alpha", "0.2", "--alpha", "0.01", "--json")
    result = said.document["result"]
    assert {"unit", "joint", "across_targets", "alpha", "confidence", "targets", "thresholds"} <= set(result)
    assert set(result["targets"][0]) == {
        "name", "labels", "inner_score", "outer_score", "metric", "unit_inner", "unit_outer", "empty_prediction",
        "present_only", "coverage_ratio", "inner_ratio", "share_inner", "n_cases", "n_present", "n_missed",
    }  # fmt: skip
    first, second = result["thresholds"]
    pairs = ("alpha", "n", "rank", "lambda", "ties", "vacuous", "reason", "n_needed", "coverage_range")
    assert set(first) == {"target", "stratum", "alpha", *(f"{key}_{s}" for key in pairs for s in ("inner", "outer"))}
    assert first["lambda_inner"] == pytest.approx(thresholds("distance", CAL, 0.2)[0])
    assert (second["lambda_inner"], second["reason_inner"]) == ("inf", "too few cases")


def test_inspect_has_no_alpha_for_a_calibrator(cal, tmp_path):
    path = tmp_path / "c.npz"
    assert segcal("calibrate", "fit", *arguments(cal), "--no-summary", "-o", path).code == 0
    assert segcal("inspect", path, "--alpha", "0.1").code == 2


def test_too_few_cases_exit_0_with_infinity(tmp_path):
    root = write_images(tmp_path / "few", CAL[:8])
    said = fit(root, tmp_path / "a.npz", *NONE, "--all-cases")
    assert said.code == 0
    assert "8 cases cannot give alpha_inner = 0.1: threshold +inf, the inner set is empty; 9 would do" in said.stderr
    header = read_artifact(tmp_path / "a.npz").header
    assert "9 would do" in header.guarantee
    out = tmp_path / "out"
    assert apply(tmp_path / "a.npz", root, out).code == 0
    codes = voxels(out / f"{name_of(CAL[0])}_sets.nii.gz")
    assert (codes == 1).all()
    assert "inner_empty;outer_everything;in_calibration" in read_rows(out / "cases.csv")[0]["flags"]


def test_a_target_in_no_case_is_refused_under_present_only(tmp_path):
    _, truth, _ = synth2d()
    absent = [i for i in range(409) if not truth[i].any()][:12]
    root = write_images(tmp_path / "none", absent)
    said = fit(root, tmp_path / "a.npz")
    assert (said.code, "target lesion is in none of the 12 calibration cases" in said.stderr) == (4, True)
    said = fit(root, tmp_path / "a.npz", "--all-cases", *NONE)
    assert said.code == 0
    assert "most calibration cases have no target" in said.stderr


def test_learning_on_a_fraction_chooses_scores_and_keeps_those_cases_apart(cal, tmp_path):
    said = fit(cal, tmp_path / "a.npz", "--learn", "0.5", "--alpha", "0.3", "--json")
    assert said.code == 0
    header = read_artifact(tmp_path / "a.npz").header
    assert (header.n_cases, header.results["learning"]["n_cases"]) == (30, 30)
    chosen = header.spec["targets"][0]
    rows = header.results["learning"]["choices"][0]["rows"]
    best = min(rows, key=lambda row: row["median_margin"])
    assert (chosen["inner_score"], chosen["outer_score"]) == (best["inner_score"], best["outer_score"])
    assert "choice      lesion" in segcal("inspect", tmp_path / "a.npz", "-v").stdout


def test_learning_on_a_folder_standardises_the_maximum(cal, tmp_path):
    learn = write_images(tmp_path / "learn", range(60))
    said = fit(
        cal, tmp_path / "a.npz", "--learn", learn, "--joint", "max",
        "--inner-score", "log-odds", "--outer-score", "distance", "--all-cases",
    )  # fmt: skip
    assert said.code == 0, said.stderr
    standard = read_artifact(tmp_path / "a.npz").header.spec["targets"][0]["standard"]
    scores = fixture("scores2d")["tau_log-odds"][:60]
    assert standard[0][0] == pytest.approx(np.median(scores[np.isfinite(scores)]))


def test_a_learning_case_cannot_calibrate(cal, tmp_path):
    learn = write_images(tmp_path / "learn", [*range(58), CAL[0]])
    said = fit(cal, tmp_path / "a.npz", "--learn", learn, "--alpha", "0.3")
    assert (said.code, "a case that chose the scores cannot calibrate" in said.stderr) == (4, True)


def test_too_few_learning_cases_name_the_number_that_would_do(cal, tmp_path):
    learn = write_images(tmp_path / "learn", range(12))
    said = fit(cal, tmp_path / "a.npz", "--learn", learn)
    assert said.code == 4
    assert "12 learning units are too few to choose scores at alpha = 0.1" in said.stderr


def test_copies_are_warned_about_and_counted(tmp_path):
    root = write_images(tmp_path / "twice", CAL[:20])
    for part in ("predictions", "labels"):
        shutil.copy(root / part / f"{name_of(CAL[0])}.nii.gz", root / part / "copy.nii.gz")
    said = fit(root, tmp_path / "a.npz", *NONE)
    assert "1 pair of cases holds the same prediction and label (copy and image_060)" in said.stderr
    assert read_artifact(tmp_path / "a.npz").header.results["duplicate_pairs"] == 1


def test_a_patient_who_chose_the_scores_cannot_calibrate(cal, tmp_path):
    """Another scan of the same patient: no prediction is there twice, and still its scores are not exchangeable."""
    learn = write_images(tmp_path / "learn", range(10, 60))
    groups = ("--groups", r"image_\d(\d\d)")
    said = fit(cal, tmp_path / "a.npz", "--learn", learn, "--alpha", "0.3", *groups)
    assert (said.code, "patients of --learn also calibrate (10, 11, 12, 13, 14, ...)" in said.stderr) == (4, True)


def test_blank_predictions_are_neither_copies_nor_seen_before(tmp_path):
    """A network that finds nothing writes the same zeros for every scan."""
    root, fresh = write_images(tmp_path / "cal", CAL[:30]), write_images(tmp_path / "new", NEW)
    for folder, which in ((root, CAL[:3]), (fresh, NEW[:2])):
        for index in which:
            write_volume(folder / "predictions" / f"{name_of(index)}.nii.gz", np.full((1, 40, 40), -5.5, "f4"), GRID)
    path = tmp_path / "a.npz"
    said = fit(root, path, *NONE)
    assert "hold the same prediction" not in said.stderr
    said = segcal("evaluate", *arguments(fresh), "-o", tmp_path / "t.csv", "--artifact", path, "--resplits", "0")
    assert said.code == 0, said.stderr
    assert apply(path, fresh, tmp_path / "out").code == 0
    assert not any("in_calibration" in row["flags"] for row in read_rows(tmp_path / "out" / "cases.csv"))
    assert json.loads((tmp_path / "out" / "drift.json").read_text())["scans"] == len(NEW)


def test_saturated_probabilities_are_warned_about(tmp_path):
    root = tmp_path / "half"
    logits, truth, _ = synth2d()
    for index in CAL[:20]:
        p = (1 / (1 + np.exp(-4 * logits[index].astype(np.float64)))).astype(np.float16)
        write_npz(root / "predictions" / f"{name_of(index)}.npz", probabilities=p[None, None])
        write_volume(root / "labels" / f"{name_of(index)}.nii.gz", truth[index][None].astype(np.uint8), GRID)
    write_classes(root / "classes.json", lesion=1)
    said = segcal(
        "conformal-sets", "fit", *arguments(root, values=None), "-o", tmp_path / "a.npz", *NONE,
        "--inner-score", "log-odds", "--outer-score", "log-odds",
    )  # fmt: skip
    assert said.code == 0, said.stderr
    assert "is a probability of exactly 1 as stored, more than alpha" in said.stderr


def test_true_voxels_in_the_padding_of_nnunet_score_a_hundred(tmp_path):
    root = tmp_path / "padded"
    rng = np.random.default_rng(0)
    for number in range(12):
        p = np.zeros((2, 3, 10, 10), np.float32)
        p[0] = 1.0
        p[:, :, 2:8, 2:8] = softmax(rng.normal(size=(2, 3, 6, 6)))
        truth = (p[1] > 0.5).astype(np.uint8)
        seg = write_volume(root / "predictions" / f"c{number:02d}.nii.gz", p.argmax(axis=0).astype(np.uint8), GRID)
        write_npz(root / "predictions" / f"c{number:02d}.npz", probabilities=p)
        truth[0, 0, 0] = 1
        write_volume(root / "labels" / seg.name, truth, GRID)
    labels = {"background": 0, "lesion": 1}
    (root / "predictions" / "dataset.json").write_text(json.dumps({"labels": labels, "file_ending": ".nii.gz"}))
    (root / "predictions" / "plans.json").write_text(json.dumps({"image_reader_writer": "NibabelIO"}))
    said = segcal(
        "conformal-sets", "fit", root / "predictions", root / "labels", "-o", tmp_path / "a.npz", *NONE,
        "--inner-score", "log-odds", "--outer-score", "log-odds",
    )  # fmt: skip
    assert said.code == 0, said.stderr
    assert (read_artifact(tmp_path / "a.npz").arrays["gamma"] == 100.0).all()


def test_a_monotone_calibrator_moves_thresholds_and_no_voxel(cal, new, tmp_path):
    learn = write_images(tmp_path / "learn", range(30))
    calibrator = tmp_path / "t.npz"
    assert segcal("calibrate", "fit", *arguments(learn), "--no-summary", "-o", calibrator).code == 0
    scores = ("--inner-score", "log-odds", "--outer-score", "log-odds")
    found = {}
    for name, through in (("raw", ()), ("calibrated", ("--calibrator", calibrator))):
        path, out = tmp_path / f"{name}.npz", tmp_path / name
        assert fit(cal, path, *NONE, *scores, *through).code == 0
        assert apply(path, new, out, "--no-drift", *through).code == 0
        row = read_rows(out / "cases.csv")[0]
        found[name] = (row["lambda_inner"], [voxels(out / f"{name_of(i)}_sets.nii.gz") for i in NEW])
    assert found["raw"][0] != found["calibrated"][0]
    assert all(np.array_equal(a, b) for a, b in zip(found["raw"][1], found["calibrated"][1], strict=True))
    assert apply(tmp_path / "calibrated.npz", new, tmp_path / "x").code == 5


def test_a_case_left_out_and_an_overlap_stay_in_the_words_of_every_command(cal, new, tmp_path):
    calibrator, path = tmp_path / "t.npz", tmp_path / "a.npz"
    assert segcal("calibrate", "fit", *arguments(cal), "--no-summary", "-o", calibrator).code == 0
    assert fit(cal, path, "--calibrator", calibrator).code == 4
    said = fit(cal, path, "--calibrator", calibrator, "--allow-overlap")
    assert "No guarantee: some calibration cases had been used to fit the calibrator" in said.stderr
    said = apply(path, new, tmp_path / "out", "--calibrator", calibrator)
    assert "No guarantee" in said.stderr
    root = write_images(tmp_path / "torn", CAL[:20])
    bad = root / "predictions" / f"{name_of(CAL[0])}.nii.gz"
    bad.write_bytes(bad.read_bytes()[:300])
    said = fit(root, tmp_path / "b.npz", *NONE, "--on-failure", "continue")
    assert (said.code, "After leaving out 1 of 20 cases" in said.stderr) == (8, True)
    assert "After leaving out 1 of 20 cases" in apply(tmp_path / "b.npz", new, tmp_path / "two").stderr


def test_label_maps_alone_calibrate_distances(new, tmp_path):
    root = write_label_maps(tmp_path / "maps", CAL)
    path = tmp_path / "a.npz"
    said = segcal("conformal-sets", "fit", *arguments(root, values=None), "-o", path, "--labels-only", *NONE)
    assert said.code == 0, said.stderr
    loaded = read_artifact(path)
    assert loaded.arrays["features"].shape == (60, 1, 3)
    assert "missed_curve" not in loaded.arrays
    fresh = write_label_maps(tmp_path / "fresh", NEW)
    assert apply(path, fresh, tmp_path / "out", values=None).code == 0
    inner, outer = thresholds("distance", CAL, 0.1)
    row = read_rows(tmp_path / "out" / "cases.csv")[0]
    assert (float(row["lambda_inner"]), float(row["lambda_outer"])) == (pytest.approx(inner), pytest.approx(outer))


def test_two_empty_label_maps_are_not_one_scan(tmp_path):
    """An empty prediction among the calibration cases, another one among the new: neither a copy nor seen before."""
    logits, _, _ = synth2d()
    empty = [i for i in range(409) if not (logits[i] > 0).any()]
    root, fresh = (
        write_label_maps(tmp_path / "maps", [*CAL, *empty[-3:]]),
        write_label_maps(tmp_path / "fresh", empty[:2]),
    )
    path = tmp_path / "a.npz"
    said = segcal("conformal-sets", "fit", *arguments(root, values=None), "-o", path, "--labels-only", *NONE)
    assert "hold the same prediction" not in said.stderr
    given = (*arguments(fresh, values=None), "--artifact", path, "--metrics", "dice", "--resplits", "0")
    said = segcal("evaluate", *given, "-o", tmp_path / "t.csv")
    assert said.code == 0, said.stderr
    assert apply(path, fresh, tmp_path / "out", values=None).code == 0
    assert json.loads((tmp_path / "out" / "drift.json").read_text())["scans"] == 2


# What apply writes and says


def test_apply_writes_the_sets_of_the_library_voxel_by_voxel(artifact, new, tmp_path):
    said = apply(artifact, new, tmp_path / "out")
    assert said.code == 0, said.stderr
    inner, outer = thresholds("distance", CAL, 0.1)
    logits, _, _ = synth2d()
    from scipy.ndimage import distance_transform_edt as edt

    for index in NEW:
        mask = logits[index] > 0
        signed = np.where(mask, edt(mask), -edt(~mask)) if mask.any() else np.full(mask.shape, -np.inf)
        expected = (~(-signed > outer + 1e-6 * (1 + outer))).astype(np.uint8)
        expected[signed > inner + 1e-6 * (1 + inner)] = 2
        assert np.array_equal(voxels(tmp_path / "out" / f"{name_of(index)}_sets.nii.gz")[0], expected)
    rows = read_rows(tmp_path / "out" / "cases.csv")
    assert list(rows[0]) == COLUMNS.split(", ")
    assert float(rows[0]["inner_ml"]) == int(rows[0]["inner_voxels"]) / 1000


def test_another_alpha_and_split_are_chosen_at_apply(cal, new, tmp_path):
    assert fit(cal, tmp_path / "a.npz", "--alpha-split", "0.02,0.08").code == 0
    assert apply(tmp_path / "a.npz", new, tmp_path / "out", "--alpha", "0.2").code == 0
    row = read_rows(tmp_path / "out" / "cases.csv")[0]
    assert (float(row["alpha_inner"]), float(row["alpha_outer"])) == (pytest.approx(0.04), pytest.approx(0.16))
    said = apply(tmp_path / "a.npz", new, tmp_path / "b", "--alpha-split", "0.08,0.05")
    assert (said.code, "together 0.13, more than alpha = 0.1" in said.stderr) == (2, True)


def test_p_values_are_counts_with_a_slope_and_say_how_to_compare(artifact, new, tmp_path):
    said = apply(artifact, new, tmp_path / "out", "--p-values", "both")
    assert "Choosing alpha after looking at a map of p-values voids the statement" in said.stderr
    case = name_of(NEW[0])
    image = nibabel.load(tmp_path / "out" / f"{case}_pvalue_inner.nii.gz")
    counts = voxels(tmp_path / "out" / f"{case}_pvalue_inner.nii.gz")
    assert (counts.dtype, counts.min() >= 1, counts.max() <= 61) == (np.uint8, True, True)
    assert image.dataobj.slope == pytest.approx(1 / 61, rel=1e-6)
    assert b"compare p<=alpha+.5/(n+1)" in image.header["descrip"].tobytes()
    codes = voxels(tmp_path / "out" / f"{case}_sets.nii.gz")
    assert np.array_equal(codes == 2, counts <= math.floor(0.1 * 61))


def test_a_scan_that_is_applied_twice_counts_once(artifact, new, tmp_path):
    out = tmp_path / "out"
    assert apply(artifact, new, out).code == 0
    first = json.loads((out / "drift.json").read_text())
    assert apply(artifact, new, out, "--overwrite").code == 0
    second = json.loads((out / "drift.json").read_text())
    assert first["scans"] == second["scans"] == len(NEW)
    assert first["features"] == second["features"]
    assert (first["threshold"], first["alarm"]) == (100.0, False)


def test_what_a_killed_run_left_of_the_history_is_removed_by_the_next(artifact, new, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    left, other = out / ".drift.tmp-drift.npz-0123456789ab.npz", out / ".drift.tmp-other.npz-0123456789ab.npz"
    left.write_bytes(b"half")
    other.write_bytes(b"of another run")
    assert apply(artifact, new, out).code == 0
    assert (left.exists(), other.exists()) == (False, True)


def test_the_history_of_another_artifact_is_refused(artifact, cal, new, tmp_path):
    assert apply(artifact, new, tmp_path / "one").code == 0
    assert fit(cal, tmp_path / "b.npz", *NONE, "--alpha", "0.2").code == 0
    history = tmp_path / "one" / "drift.npz"
    said = apply(tmp_path / "b.npz", new, tmp_path / "two", "--history", history)
    assert (said.code, "is the history of another artifact" in said.stderr) == (5, True)
    assert apply(tmp_path / "b.npz", new, tmp_path / "three", "--no-drift").code == 0


def test_calibration_cases_are_flagged_when_they_are_applied(artifact, cal, tmp_path):
    said = apply(artifact, cal, tmp_path / "out")
    assert "60 rows are of cases that these sets, or the calibrator before them, were fitted on" in said.stderr
    assert all("in_calibration" in row["flags"] for row in read_rows(tmp_path / "out" / "cases.csv"))


def test_copies_and_cases_of_the_calibrator_are_flagged_like_calibration_cases(cal, new, tmp_path):
    learn = write_images(tmp_path / "learn", range(30))
    path, through = tmp_path / "a.npz", ("--calibrator", tmp_path / "t.npz")
    assert segcal("calibrate", "fit", *arguments(learn), "--no-summary", "-o", tmp_path / "t.npz").code == 0
    assert fit(cal, path, *NONE, *through).code == 0
    for root, name, expected in ((cal, CAL[0], True), (learn, 0, True), (learn, None, True), (new, NEW[0], False)):
        out = write_images(tmp_path / f"{root.name}{name}", [0] if name is None else [name])
        if name is not None:
            scan = out / "predictions" / f"{name_of(name)}.nii.gz"
            scan.rename(scan.with_name("fresh.nii.gz"))
        assert apply(path, out, out / "sets", *through).code == 0
        flags = [row["flags"].split(";") for row in read_rows(out / "sets" / "cases.csv")]
        assert ["in_calibration" in own for own in flags] == [expected]


def test_a_contradiction_is_flagged_without_labels(cal, new, tmp_path):
    """An inner set of log-odds and an outer one far inside the prediction: where both hold, one is wrong."""
    path = tmp_path / "a.npz"
    assert fit(cal, path, *NONE, "--inner-score", "log-odds", "--alpha", "0.6").code == 0
    assert apply(path, new, tmp_path / "out", "--alpha", "0.97").code == 0
    rows = read_rows(tmp_path / "out" / "cases.csv")
    assert any("contradiction" in row["flags"] for row in rows)


def test_boxes_have_a_table_of_their_own(cal, new, tmp_path):
    assert fit(cal, tmp_path / "a.npz", *NONE, "--outer-score", "boxes").code == 0
    assert apply(tmp_path / "a.npz", new, tmp_path / "out").code == 0
    boxes = read_rows(tmp_path / "out" / "boxes.csv")
    case = boxes[0]["case"]
    painted = np.zeros((40, 40), bool)
    for row in (row for row in boxes if row["case"] == case):
        y, x = (slice(int(row[f"{a}_first"]), int(row[f"{a}_last"]) + 1) for a in "yx")
        painted[y, x] = True
    assert np.array_equal(voxels(tmp_path / "out" / f"{case}_sets.nii.gz")[0] > 0, painted)


def test_given_weights_make_one_threshold_per_case(artifact, new, tmp_path):
    table = tmp_path / "w.csv"
    ids = [name_of(i) for i in (*CAL, *NEW)]
    heavy = {name_of(NEW[1]): 100.0}
    table.write_text("case,weight\n" + "".join(f"{id},{heavy.get(id, 1.0)}\n" for id in ids))
    said = apply(artifact, new, tmp_path / "out", "--weights", table)
    assert "if the given weights are the true density ratios" in said.stderr
    rows = read_rows(tmp_path / "out" / "cases.csv")
    inner, _ = thresholds("distance", CAL, 0.1)
    assert float(rows[0]["lambda_inner"]) == pytest.approx(inner)
    assert (rows[1]["lambda_inner"], rows[1]["weight"]) == ("inf", "100.0")
    table.write_text("case,weight\n" + "".join(f"{id},1\n" for id in ids[:-1]))
    said = apply(artifact, new, tmp_path / "two", "--weights", table)
    assert (said.code, f"no weight for case {ids[-1]}" in said.stderr) == (4, True)
    table.write_text(f"case,weight\n{ids[0]},-1\n")
    assert apply(artifact, new, tmp_path / "two", "--weights", table).code == 4


def test_estimated_weights_call_the_promise_approximate(artifact, new, tmp_path):
    said = apply(artifact, new, tmp_path / "out", "--weights", "estimate")
    assert said.code == 0, said.stderr
    assert "approximately, since the weights are estimated" in said.stderr
    assert "effective number of calibration cases" in said.stderr


def test_several_exclusive_targets_are_joined_too(tmp_path):
    root = tmp_path / "three"
    rng = np.random.default_rng(5)
    for number in range(24):
        z = rng.normal(size=(3, 4, 12, 12)).astype(np.float32)
        z[1, :, 2:8, 2:8] += 4
        z[2, :, 6:11, 6:11] += 5
        truth = (z + rng.gumbel(size=z.shape)).argmax(axis=0).astype(np.uint8)
        write_volume(root / "predictions" / f"c{number:02d}.nii.gz", z, GRID)
        write_volume(root / "labels" / f"c{number:02d}.nii.gz", truth, GRID)
    write_classes(root / "classes.json", background=0, a=1, b=2)
    path, out = tmp_path / "a.npz", tmp_path / "out"
    scores = ("--inner-score", "log-odds", "--outer-score", "log-odds")
    assert fit(root, path, *NONE, *scores, "--alpha", "0.5").code == 0
    assert apply(path, root, out).code == 0
    a, b = (voxels(out / f"c00_sets_{name}.nii.gz") for name in "ab")
    certain, possible = voxels(out / "c00_certain.nii.gz"), voxels(out / "c00_possible.nii.gz")
    assert np.array_equal(possible, (a > 0) + 2 * (b > 0).astype(np.uint8))
    assert np.array_equal(certain == 1, (a == 2) & (b != 2))
    assert len(read_rows(out / "cases.csv")) == 48


def test_images_without_a_grid_are_measured_in_pixels_and_written_as_palette(tmp_path, artifact):
    root = write_pngs(tmp_path / "png", CAL)
    path, out = tmp_path / "a.npz", tmp_path / "out"
    said = segcal("conformal-sets", "fit", *arguments(root, values=None), "-o", path, *NONE)
    assert said.code == 0, said.stderr
    assert " px at alpha 0.1" in said.stderr
    fresh = write_pngs(tmp_path / "fresh", NEW)
    assert apply(path, fresh, out, "--p-values", "inner", values=None).code == 0
    image = Image.open(out / f"{name_of(NEW[0])}_sets.png")
    assert (image.mode, set(np.unique(image)) <= {0, 1, 2}) == ("P", True)
    row = read_rows(out / "cases.csv")[0]
    assert (row["inner_ml"], row["predicted_ml"]) == ("", "")
    said = apply(path, write_images(tmp_path / "grid", NEW[:2], values="probabilities"), tmp_path / "x",
                 values="probabilities")  # fmt: skip
    assert (said.code, "has thresholds in px" in said.stderr) == (5, True)


def test_slices_of_different_spacing_are_fine_in_mm(tmp_path):
    root = write_images(tmp_path / "mix", CAL[:20])
    write_images(root, CAL[20:40], affine=np.diag([0.8, 1.25, 3.0, 1.0]), depth=3)
    assert fit(root, tmp_path / "a.npz", *NONE).code == 0
    said = fit(root, tmp_path / "b.npz", *NONE, "--metric", "taxicab")
    assert "steps are not comparable between them" in said.stderr


# Strata, patients, regions of interest


def test_strata_from_a_table_need_one_for_new_cases_and_flag_unknown_ones(cal, new, tmp_path):
    _, _, site = synth2d()
    table = tmp_path / "site.csv"
    table.write_text("case,group\n" + "".join(f"{name_of(i)},site{site[i]}\n" for i in (*CAL, *NEW)))
    path = tmp_path / "a.npz"
    said = fit(cal, path, *NONE, "--mondrian", table)
    assert "within each of the strata site0, site1" in said.stderr
    assert read_artifact(path).header.spec["mondrian"] == "CSV"
    assert apply(path, new, tmp_path / "x").code == 2
    table.write_text("case,group\n" + "".join(f"{name_of(i)},site{site[i] if i != NEW[0] else 9}\n" for i in NEW))
    said = apply(path, new, tmp_path / "out", "--mondrian", table)
    assert "1 case is of a stratum without calibration" in said.stderr
    rows = {row["case"]: row for row in read_rows(tmp_path / "out" / "cases.csv")}
    first = rows[name_of(NEW[0])]
    assert (first["lambda_inner"], "unknown_stratum" in first["flags"]) == ("inf", True)
    mine = tuple(i for i in CAL if site[i] == site[NEW[1]])
    assert float(rows[name_of(NEW[1])]["lambda_inner"]) == pytest.approx(thresholds("distance", mine, 0.1)[0])


def test_strata_by_volume_are_known_from_the_prediction(cal, new, tmp_path):
    path = tmp_path / "a.npz"
    said = fit(cal, path, *NONE, "--mondrian", "volume:0.05,0.15", "--json")
    assert [row["stratum"] for row in said.document["result"]["thresholds"]] == [
        "below 0.05 ml", "0.05 to 0.15 ml", "0.15 ml or more",
    ]  # fmt: skip
    assert apply(path, new, tmp_path / "out").code == 0
    for row in read_rows(tmp_path / "out" / "cases.csv"):
        ml = float(row["predicted_ml"])
        assert row["stratum"] == (
            "below 0.05 ml" if ml < 0.05 else "0.05 to 0.15 ml" if ml < 0.15 else "0.15 ml or more"
        )


def test_patients_are_units_and_hcp_weighs_their_cases(cal, tmp_path):
    groups = ("--groups", r"image_(\d\d)")
    said = fit(cal, tmp_path / "a.npz", *NONE, *groups, "--json")
    assert said.document["result"]["unit"] == "max"
    assert said.document["result"]["thresholds"][0]["n_inner"] == 6
    said = fit(cal, tmp_path / "b.npz", *NONE, *groups, "--unit", "hcp", "--json")
    row = said.document["result"]["thresholds"][0]
    assert (row["rank_inner"], row["coverage_range_inner"]) == (None, None)
    assert fit(cal, tmp_path / "c.npz", *groups, "--unit", "case").code == 2


def test_a_region_of_interest_is_wanted_at_fit_and_apply_or_at_neither(cal, new, tmp_path):
    for root, which in ((cal, CAL), (new, NEW)):
        for index in which:
            roi = np.zeros((1, 40, 40), np.uint8)
            roi[:, 2:38, 2:36] = 1
            write_volume(tmp_path / root.name / f"{name_of(index)}.nii.gz", roi, GRID)
    path = tmp_path / "a.npz"
    said = fit(cal, path, *NONE, "--roi", tmp_path / cal.name)
    assert said.code == 0, said.stderr
    assert "The sets lie in the region of interest, and what is target outside of it counts as missed" in said.stderr
    assert "have truth outside the region of interest, which counts as missed" in said.stderr
    said = apply(path, new, tmp_path / "x")
    assert said.code == 2
    assert "was fitted with a region of interest: give --roi FOLDER, or --cases with a column roi" in said.stderr
    fit(cal, tmp_path / "b.npz", *NONE)
    said = apply(tmp_path / "b.npz", new, tmp_path / "x", "--roi", tmp_path / new.name)
    assert said.code == 2
    assert "was fitted without a region of interest: leave --roi, or the column roi of --cases, away" in said.stderr
    roi = ("--roi", tmp_path / new.name)
    assert apply(path, new, tmp_path / "out", *roi, "--alpha", "0.8").code == 0
    codes = np.stack([voxels(tmp_path / "out" / f"{name_of(index)}_sets.nii.gz")[0] for index in NEW])
    assert codes.any()
    assert not codes[:, :, 36:].any()
    # With +inf nothing less than everything holds what may lie outside the region.
    assert apply(path, new, tmp_path / "all", *roi, "--alpha", "0.01").code == 0
    assert voxels(tmp_path / "all" / f"{name_of(NEW[0])}_sets.nii.gz").all()


# Refusals


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--seed", "-1"), "--seed -1 is not allowed"),
        (("--alpha", "1.5"), "--alpha 1.5 is not allowed"),
        (("--target", "liver"), "liver is neither a class name nor a label value"),
        (("--target", "x=lesion+lesion", "--target", "x=1"), "--target x is given twice"),
        (("--joint", "max", "--present-only"), "does not go with --present-only"),
        (("--joint", "max", "--alpha-split", "0.05,0.05"), "--alpha-split goes with --joint split"),
        (("--joint", "max", "--inner-score", "log-odds"), "both must have one scale"),
        (("--alpha-split", "0.06,0.06"), "together 0.12, more than alpha = 0.1"),
        (("--alpha-split", "auto"), "give --learn FRACTION or FOLDER"),
        (("--inner-score", "auto:distance"), "give --learn FRACTION or FOLDER"),
        (("--inner-score", "softmax"), "score softmax is for exclusive classes"),
        (("--inner-score", "smooth:x"), "a number in mm must follow the colon"),
        (("--unit", "hcp"), "--unit hcp needs --groups"),
        (("--unit", "max"), "--unit max needs --groups"),
        (("--across-targets", "max"), "--across-targets max needs --joint max"),
        (("--mondrian", "volume:3,1"), "edges in ml must be positive and ascending"),
        (("--learn", "1.5"), "a fraction must lie strictly between 0 and 1"),
        (("--learn", "0.001"), "takes 0 of 60 units"),
        (("--labels-only", "--outer-score", "log-odds"), "log-odds needs soft values"),
        (("--coverage-ratio", "0"), "--coverage-ratio 0 is not allowed"),
    ],
)
def test_options_that_make_no_sense_are_a_usage_error_before_anything_is_read(cal, tmp_path, options, said):
    found = fit(cal, tmp_path / "a.npz", *options)
    assert (found.code, said in found.stderr) == (2, True), found.stderr
    assert not (tmp_path / "a.npz").exists()


def test_inner_boxes_of_volumes_are_refused(tmp_path):
    root = write_images(tmp_path / "deep", CAL[:12], depth=3)
    said = fit(root, tmp_path / "a.npz", "--inner-score", "boxes")
    assert (said.code, "--inner-score boxes is for 2-D images only" in said.stderr) == (2, True)
    assert fit(root, tmp_path / "a.npz", "--outer-score", "boxes").code == 0


def test_nan_is_told_with_file_and_count(cal, tmp_path):
    root = write_images(tmp_path / "nan", CAL[:12])
    logits = np.zeros((1, 40, 40), np.float32)
    logits[0, 3, 4:6] = np.nan
    write_volume(root / "predictions" / f"{name_of(CAL[3])}.nii.gz", logits, GRID)
    said = fit(root, tmp_path / "a.npz")
    assert said.code == 4
    assert f"{name_of(CAL[3])}.nii.gz" in said.stderr
    assert "2 NaN" in said.stderr


def test_artifacts_of_another_kind_or_damaged_are_refused(cal, new, artifact, tmp_path):
    other = tmp_path / "t.npz"
    assert segcal("calibrate", "fit", *arguments(cal), "--no-summary", "-o", other).code == 0
    assert apply(other, new, tmp_path / "x").code == 5
    torn = tmp_path / "torn.npz"
    torn.write_bytes(artifact.read_bytes()[:2000])
    assert apply(torn, new, tmp_path / "x").code == 5
    said = apply(artifact, write_images(tmp_path / "p", NEW[:2], values="probabilities"), tmp_path / "x",
                 values="probabilities")  # fmt: skip
    assert said.code == 5


def test_existing_outputs_stay(artifact, new, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "cases.csv").write_text("mine")
    assert apply(artifact, new, out).code == 2
    assert [path.name for path in out.iterdir()] == ["cases.csv"]


def test_p_values_do_not_go_with_confidence(cal, new, tmp_path):
    assert fit(cal, tmp_path / "a.npz", *NONE, "--confidence", "0.9").code == 0
    assert apply(tmp_path / "a.npz", new, tmp_path / "x", "--p-values", "inner").code == 2
    assert apply(tmp_path / "a.npz", new, tmp_path / "x", "--weights", "estimate").code == 2


# Evaluate


def test_evaluate_writes_a_table_per_question_and_counts_exactly(artifact, new, tmp_path):
    said = segcal(
        "evaluate", *arguments(new), "-o", tmp_path / "t.csv", "--artifact", f"sets={artifact}", "--compare",
        "crc,rcps,bonferroni", "--by", r"image_(\d\d)", "--resplits", "50", "--alphas", "0.05:0.5:0.05", "--json",
    )  # fmt: skip
    assert said.code == 0, said.stderr
    assert "sets: what is promised at alpha 0.1" in said.stderr
    assert "For a new case exchangeable with the 60 calibration cases" in said.stderr
    (entry,) = said.document["result"]["conformal_sets"]
    names = ["cases", "coverage", "sweep", "resplits", "groups", "methods"]
    assert sorted(path.name for path in tmp_path.glob("t.sets.*")) == sorted(f"t.sets.{name}.csv" for name in names)
    inner, outer = thresholds("distance", CAL, 0.1)
    scores = fixture("scores2d")
    tau, gamma = scores["tau_distance"][list(NEW)], scores["gamma_distance"][list(NEW)]
    rows = {row["side"]: row for row in entry["coverage"]}
    assert rows["inner"]["covered"] == int((tau <= inner + 1e-5).sum())
    assert rows["outer"]["covered"] == int((gamma <= outer + 1e-5).sum())
    assert rows["joint"]["covered"] == int(((tau <= inner + 1e-5) & (gamma <= outer + 1e-5)).sum())
    assert (rows["outer"]["p_low"], rows["joint"]["nominal"]) == (None, None)
    assert rows["inner"]["expected"] == pytest.approx(55 / 61)
    assert [row["method"] for row in read_rows(tmp_path / "t.sets.methods.csv")] == [
        "sets",
        "crc",
        "rcps",
        "bonferroni",
    ]
    sweep = read_rows(tmp_path / "t.sets.sweep.csv")
    assert len(sweep) == 10
    assert [float(row["median_outer_voxels"]) for row in sweep] == sorted(
        (float(row["median_outer_voxels"]) for row in sweep), reverse=True
    )


def test_morphological_prediction_sets_stand_beside_distances_as_an_artifact_of_their_own(cal, new, artifact, tmp_path):
    """Mossina and Friedrich: dilate the prediction with the cross until the share R of the target is held."""
    from scipy.ndimage import binary_dilation

    path = tmp_path / "dilation.npz"
    assert fit(cal, path, *NONE, "--metric", "taxicab", "--coverage-ratio", "0.9").code == 0
    said = segcal(
        "evaluate", *arguments(new), "-o", tmp_path / "t.csv", "--artifact", f"sets={artifact}", "--artifact",
        f"dilation={path}", "--compare", "crc", "--resplits", "0", "--json",
    )  # fmt: skip
    assert said.code == 0, said.stderr
    first, second = said.document["result"]["conformal_sets"]
    assert [row["method"] for row in (*first["methods"], *second["methods"])] == ["sets", "crc", "dilation", "crc"]
    assert "at least 90 % of it is in the outer set: in at least 90 % of new cases" in second["methods"][0]["guarantee"]
    steps = int(second["thresholds"][0]["lambda_outer"])
    logits, _, _ = synth2d()
    sizes = [int(binary_dilation(logits[i] > 0, iterations=steps).sum()) if (logits[i] > 0).any() else 0 for i in NEW]
    assert [int(row["outer_voxels"]) for row in read_rows(tmp_path / "t.dilation.cases.csv")] == sizes


def test_the_true_volume_lies_between_those_of_both_sets_wherever_both_are_right(artifact, new, tmp_path):
    assert apply(artifact, new, tmp_path / "out").code == 0
    given = (*arguments(new), "-o", tmp_path / "t.csv", "--artifact", f"sets={artifact}", "--resplits", "0")
    assert segcal("evaluate", *given).code == 0
    _, truth, _ = synth2d()
    judged = {row["case"]: row for row in read_rows(tmp_path / "t.sets.cases.csv")}
    right = 0
    for index, row in zip(NEW, read_rows(tmp_path / "out" / "cases.csv"), strict=True):
        if judged[row["case"]]["covered_inner"] == judged[row["case"]]["covered_outer"] == "true":
            right += 1
            assert float(row["inner_ml"]) <= truth[index].sum() / 1000 <= float(row["outer_ml"])
    assert right >= 6


def test_evaluate_refuses_the_cases_of_the_artifact(artifact, cal, tmp_path):
    command = ("evaluate", *arguments(cal), "-o", tmp_path / "t.csv", "--artifact", artifact)
    assert segcal(*command).code == 4
    said = segcal(*command, "--allow-overlap", "--resplits", "0")
    assert said.code == 0
    assert "IN-SAMPLE" in said.stderr


@pytest.mark.parametrize(
    "options", [("--compare", "magic"), ("--alphas", "0:1:0.1"), ("--alpha", "0"), ("--resplits", "-1")]
)
def test_evaluate_refuses_options_without_meaning(artifact, new, tmp_path, options):
    said = segcal("evaluate", *arguments(new), "-o", tmp_path / "t.csv", "--artifact", artifact, *options)
    assert said.code == 2


# Reliability


def test_reliability_draws_failures_first_and_every_picture_of_sets(artifact, new, tmp_path):
    for index in NEW:
        write_volume(tmp_path / "scans" / f"{name_of(index)}_0000.nii.gz", np.ones((1, 40, 40), np.float32), GRID)
    plots = "overlay,score-maps,false-coverage,set-sizes,resplits,set-scores"
    said = segcal(
        "reliability", *arguments(new), "-o", tmp_path / "out", "--artifact", f"sets={artifact}", "--plots", plots,
        "--format", "png", "--dpi", "50", "--max-cases", "3", "--images", tmp_path / "scans", "--show-scores",
    )  # fmt: skip
    assert said.code == 0, said.stderr
    names = {path.name.partition("__")[0] for path in (tmp_path / "out").glob("*.png")}
    assert names == set(plots.split(","))
    cases = [path.stem.split("__")[3] for path in (tmp_path / "out").glob("overlay__*__*__*.png")]
    assert len(cases) == 3
    inner, outer = thresholds("distance", CAL, 0.1)
    scores = fixture("scores2d")
    wrong = {
        name_of(i)
        for i in NEW
        if scores["tau_distance"][i] > inner + 1e-5 or scores["gamma_distance"][i] > outer + 1e-5
    }
    assert wrong & set(cases) == set(sorted(wrong)[:3])
    assert "Sets on the scans" in (tmp_path / "out" / "report.html").read_text()
    assert re.search(r"(inner|outer) wrong by \d+ voxel", (tmp_path / "out" / "report.html").read_text())


@pytest.mark.parametrize("options", [("--alphas", "0.1,x"), ("--alphas", "1.5"), ("--max-cases", "-1")])
def test_reliability_refuses_options_without_meaning(artifact, new, tmp_path, options):
    said = segcal("reliability", *arguments(new), "-o", tmp_path / "out", "--artifact", artifact, *options)
    assert said.code == 2
