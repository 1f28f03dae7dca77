"""What the fuzzing found, each once: the file that ended in a traceback, and what is said of it now."""

from __future__ import annotations

import contextlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from segcal_cli.io import nifti
from segcal_cli.io.bundles import read_bundle, write_bundle
from segcal_cli.io.seals import sealed
from segcal_cli.kandinsky.regions import AtlasNotWhole
from segcal_cli.metrics.columns import CLASS_COLUMNS
from segcal_cli.workflows.cluster_atlas import read_atlas
from tests.cli.builders import AFFINE, write_volume
from tests.cli.builders_reading import segcal
from tests.fuzz.every import scene_of
from tests.fuzz.scenes import COMMON, FOLDERS, build_nnunet


def reforged(path: Path, change=None, **arrays: np.ndarray) -> Path:
    """An artifact with another header (``change`` edits the document) and other arrays; sums and seal are right."""
    found = read_bundle(path)
    header = json.loads(str(found["header"]))
    if change is not None:
        change(header)
    found |= arrays
    with contextlib.suppress(ValueError):  # what is no JSON cannot be sealed
        header = sealed(header, {name: found[name] for name in found if name != "header"})
    found["header"] = np.array(json.dumps(header))
    with path.with_name("damaged.npz").open("wb") as file:
        write_bundle(file, found)
    return path.with_name("damaged.npz")


def built(name: str, root: Path) -> Path:
    root.mkdir()
    scene_of(name).build(root)
    return root


@pytest.fixture(scope="module")
def calibrators(tmp_path_factory):
    return built("calibrate-artifacts", tmp_path_factory.mktemp("found") / "scene")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return built("conformal-sets-artifacts", tmp_path_factory.mktemp("found") / "scene")


@pytest.fixture(scope="module")
def ratios(tmp_path_factory):
    return built("ntr-interval-artifacts", tmp_path_factory.mktemp("found") / "scene")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return built("saved-counts", tmp_path_factory.mktemp("found") / "scene")


@pytest.fixture(scope="module")
def clusters(tmp_path_factory):
    return built("cluster-artifacts", tmp_path_factory.mktemp("found") / "scene")


def words(root: Path, *command: str) -> list[str]:
    return [word.replace("{}", str(root)) for word in command]


def refused_by_both(root: Path, command: str, damaged: Path, out: Path, why: str) -> None:
    """``inspect`` and ``apply`` say what is damaged."""
    for asked in (["inspect", damaged], of_artifact(root, command, damaged, out)):
        ran = segcal(*asked)
        assert ran.code == 5
        assert f"damaged.npz is not a segcal artifact: {why}" in ran.err


def of_artifact(root: Path, command: str, artifact: Path, out: Path) -> list[str]:
    return words(root, command, "apply", str(artifact), "{}/predictions", "-o", str(out), *COMMON)


@pytest.mark.parametrize("number", [float("inf"), float("nan"), 1e30])
@pytest.mark.parametrize("field", [280, 292, 80])
def test_an_affine_of_absurd_numbers_is_refused_without_a_warning(field, number, tmp_path):
    write_volume(tmp_path / "predictions" / "a.nii", np.zeros((3, 2, 3, 4), np.float32))
    content = bytearray((tmp_path / "predictions" / "a.nii").read_bytes())
    content[field : field + 4] = struct.pack("<f", number)
    (tmp_path / "predictions" / "a.nii").write_bytes(content)
    (tmp_path / "classes.json").write_text(json.dumps({"a": 0, "b": 1, "c": 2}))
    ran = segcal(*words(tmp_path, "convert", "{}/predictions", "-o", "{}/out", *COMMON))
    assert ran.code == 4
    assert "a.nii: affine is not usable" in ran.err


def test_voxels_beyond_float32_become_infinite_without_a_warning(tmp_path):
    values = np.array([1e300, -1e300, 1.0]).reshape(1, 1, 3)
    nifti.write(tmp_path / "a.nii", values, AFFINE)
    assert nifti.read(nifti.probe(tmp_path / "a.nii")).ravel().tolist() == [np.inf, -np.inf, 1.0]
    nifti.write(tmp_path / "b.nii", np.array([30000, -30000, 0], np.int16).reshape(1, 1, 3), AFFINE)
    content = bytearray((tmp_path / "b.nii").read_bytes())
    content[112:116] = struct.pack("<f", 3e38)
    (tmp_path / "b.nii").write_bytes(content)
    assert nifti.read(nifti.probe(tmp_path / "b.nii")).ravel().tolist() == [np.inf, -np.inf, 0.0]


def test_a_segmentation_scaled_beyond_integers_proves_nothing(tmp_path):
    build_nnunet(tmp_path)
    path = tmp_path / "predictions" / "case_01.nii.gz"
    nifti.write(tmp_path / "x.nii", nifti.read_raw(nifti.probe(path)), AFFINE)
    content = bytearray((tmp_path / "x.nii").read_bytes())
    content[112:116] = struct.pack("<f", 3e38)
    with path.open("wb") as file:
        nifti.gzipped.compress_into(file, [bytes(content)])
    ran = segcal(*words(tmp_path, "convert", "{}/predictions", "-o", "{}/out"))
    assert ran.code == 8
    assert "case_01.nii.gz: label values from 0 to 6e+38; a scan instead of its label?" in ran.err


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("temperature", np.array([[0.0]])),
        ("temperature", np.array([[1e-300]])),
        ("temperature", np.array([[np.nan]])),
        ("temperature", np.array([[1.0]], np.float32)),
        ("temperature", np.empty((0, 1))),
        ("platt", np.array([[1.0, 0.0]])),
        ("platt", np.full((3, 2), 1e300)),
        ("vector", np.full((1, 12), np.inf)),
        ("auxiliary", np.full((1, 78), np.nan)),
    ],
)
def test_parameters_that_give_no_probabilities_are_damage(method, parameters, calibrators, tmp_path):
    damaged = reforged(calibrators / f"{method}.npz", parameters=parameters)
    for command in (
        ["inspect", damaged],
        of_artifact(calibrators, "calibrate", damaged, tmp_path / "out"),
        [*words(calibrators, "evaluate", *FOLDERS, *COMMON), "-o", tmp_path / "t.csv", "--artifact", damaged],
    ):
        ran = segcal(*command)
        assert ran.code == 5
        assert "damaged.npz is not a segcal artifact: its arrays are damaged" in ran.err


def _seed(header: dict) -> None:
    header["seed"] = float("inf")


def _large(header: dict) -> None:
    header["seed"] = 1e400


def _below(header: dict) -> None:
    header["seed"] = -1


def _value(header: dict) -> None:
    header["classes"][0]["values"] = [None]


def _kind(header: dict) -> None:
    header["kind"] = {}


def _dropped(header: dict) -> None:
    header["dropped"] = [{"file": "a.nii.gz"}]


def _number(header: dict) -> None:
    header["dropped"] = [{"case": 7}]


@pytest.mark.parametrize("change", [_seed, _large, _below, _value, _kind, _dropped, _number])
def test_a_header_of_wrong_types_is_damage(change, calibrators):
    ran = segcal("inspect", reforged(calibrators / "temperature.npz", change))
    assert ran.code == 5
    assert "damaged.npz is not a segcal artifact: its header is damaged" in ran.err


def _parameters(header: dict) -> None:
    header["results"]["parameters"] = [1]


def _summary(header: dict) -> None:
    header["results"]["summary"] = {"before": 1}


def _facts(header: dict) -> None:
    header["results"]["facts"] = None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_parameters, "results.parameters is not a table"),
        (_summary, "results.summary.before is not a table"),
        (_facts, "results.facts is not a table"),
    ],
)
def test_results_that_cannot_be_shown_are_damage(change, why, calibrators, tmp_path):
    damaged = reforged(calibrators / "temperature.npz", change)
    refused_by_both(calibrators, "calibrate", damaged, tmp_path / "out", f"its header is damaged ({why})")


@pytest.mark.parametrize(
    "arrays",
    [
        {"present": np.ones((2, 2))},
        {"tau": np.full((2, 2), np.nan)},
        {"spacing": np.full((2, 3), np.nan)},
        {"stratum": np.zeros((2, 2))},
    ],
    ids=["present", "tau", "spacing", "stratum"],
)
def test_a_table_of_other_types_is_damage(arrays, sets, tmp_path):
    damaged = reforged(sets / "plain.npz", **arrays)
    for command in (["inspect", damaged], of_artifact(sets, "conformal-sets", damaged, tmp_path / "out")):
        ran = segcal(*command)
        assert ran.code == 5
        assert "damaged.npz is not a segcal artifact: its arrays are damaged" in ran.err


@pytest.mark.parametrize("artifact", [1.5, 7, False, None])
def test_a_history_whose_header_is_damaged_is_none(artifact, sets, tmp_path):
    found = read_bundle(sets / "history.npz")
    head = json.loads(str(found.pop("header"))) | {"artifact": artifact}
    with (tmp_path / "history.npz").open("wb") as file:
        write_bundle(file, {"header": np.array(json.dumps(sealed(head, found))), **found})
    command = of_artifact(sets, "conformal-sets", sets / "plain.npz", tmp_path / "out")
    ran = segcal(*command, "--history", tmp_path / "history.npz")
    assert ran.code == 5
    assert "history.npz is no history of scans: its header is damaged" in ran.err


@pytest.mark.parametrize(
    "arrays",
    [
        {"A": np.full(2, np.nan)},
        {"B": np.full(2, np.inf)},
        {"A_label": np.full(2, -1.0)},
        {"U_A": np.full(2, 1e300)},
        {"voxels": np.zeros(2)},
    ],
    ids=["A", "B", "A_label", "U_A", "voxels"],
)
def test_volumes_that_none_has_are_damage(arrays, ratios, tmp_path):
    damaged = reforged(ratios / "ratio.npz", **arrays)
    for command in (["inspect", damaged], of_artifact(ratios, "ntr-interval", damaged, tmp_path / "out.csv")):
        ran = segcal(*command)
        assert ran.code == 5
        assert "damaged.npz is not a segcal artifact: its table of cases is damaged" in ran.err


def _bins(header: dict) -> None:
    del header["spec"]["bins"]


def _region(header: dict) -> None:
    header["spec"]["numerator"]["values"] = []


@pytest.mark.parametrize(
    ("change", "why"), [(_bins, "spec.bins is not there"), (_region, "spec.numerator.values is not filled")]
)
def test_a_ratio_without_its_bins_or_its_region_is_damage(change, why, ratios):
    ran = segcal("inspect", reforged(ratios / "ratio.npz", change))
    assert ran.code == 5
    assert f"its header is damaged ({why})" in ran.err


def _name(header: dict) -> None:
    header["results"]["sources"][0]["name"] = True


def _averaged(header: dict) -> None:
    header["results"]["averaged"] = [""]


def _closed(header: dict) -> None:
    header["spec"]["closed"] = "x"


def _level(header: dict) -> None:
    header["spec"]["level"] = 7


@pytest.mark.parametrize(
    ("change", "arrays"),
    [
        (_averaged, {}),
        (_closed, {}),
        (_level, {}),
        (None, {"source0_pooled_hits": np.zeros((3, 2), np.int64)}),
        (None, {"source0_pooled_top_n": np.full(20, np.iinfo(np.int64).max)}),
        (None, {"source0_joint": np.zeros((2, 2))}),
        (None, {"source0_rows": np.full((2, 3, len(CLASS_COLUMNS)), np.inf)}),
    ],
)
def test_counts_that_are_none_are_damage(change, arrays, study, tmp_path):
    damaged = reforged(study / "counts.npz", change, **arrays)
    ran = segcal("evaluate", "--from", damaged, "-o", tmp_path / "table.csv")
    assert ran.code == 5
    assert "damaged.npz is not a segcal artifact: its arrays are damaged" in ran.err


def _convention(header: dict) -> None:
    header["spec"]["convention"] = []


@pytest.mark.parametrize(
    ("change", "why"), [(_name, "results.sources.0.name is not text"), (_convention, "spec.convention is not text")]
)
def test_saved_counts_of_a_damaged_header_are_damage(change, why, study, tmp_path):
    ran = segcal("evaluate", "--from", reforged(study / "counts.npz", change), "-o", tmp_path / "table.csv")
    assert ran.code == 5
    assert f"damaged.npz is not a segcal artifact: its header is damaged ({why}" in ran.err


def test_saved_counts_are_inspected_like_any_artifact(study):
    ran = segcal("inspect", study / "counts.npz")
    assert ran.code == 0
    assert "kind        evaluation, method histograms" in ran.out
    assert segcal("inspect", study / "counts.npz", "--alpha", "0.1").code == 2


def _block(header: dict) -> None:
    header["results"]["model"]["placing"]["block"] = 0


def _grid(header: dict) -> None:
    header["results"]["model"]["grid"] = [4, 4, 4]


def _gridless(header: dict) -> None:
    header["results"]["model"]["grid"] = []


def _placeless(header: dict) -> None:
    header["method"] = "pixel"


def _strangers(header: dict) -> None:
    header["results"]["calibration_cases"].append("nobody")


@pytest.mark.parametrize(
    ("method", "change"),
    [("kmeans", _block), ("grid", _grid), ("grid", _gridless), ("grid", _placeless), ("grid", _strangers)],
)
def test_a_map_that_does_not_fit_its_pools_is_damage(method, change, clusters, tmp_path):
    damaged = reforged(clusters / f"{method}.npz", change)
    for command in (["inspect", damaged], of_artifact(clusters, "cluster", damaged, tmp_path / "out")):
        ran = segcal(*command)
        assert ran.code == 5
        assert "damaged.npz is not a segcal artifact: its model is damaged" in ran.err


def test_a_curve_beyond_probabilities_is_damage(calibrators, tmp_path):
    rows = read_bundle(calibrators / "isotonic.npz")["parameters"]
    for number, change in enumerate((-1.0, 1.0, np.nan)):
        changed = rows.copy()
        changed[0, len(rows[0]) // 2 - 1 : -1] = change
        damaged = reforged(calibrators / "isotonic.npz", parameters=changed)
        ran = segcal(*of_artifact(calibrators, "calibrate", damaged, tmp_path / f"out{number}"))
        assert ran.code == 5
        assert "damaged.npz is not a segcal artifact: its arrays are damaged" in ran.err


def _makers(header: dict) -> None:
    header["results"]["map_cases"] = ["x"]


def _dimension(header: dict) -> None:
    del header["results"]["dimension"]


def _coords(header: dict) -> None:
    header["results"]["model"]["placing"] = {"coords": [], "shape": [2, 4, 5], "spacing": [1.0, 1.0, 1.0], "block": 1}


def _blocks(header: dict) -> None:
    header["results"]["model"]["grid"] = -1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_makers, "results.map_cases is not a table"),
        (_dimension, "results.dimension is not there"),
        (_coords, "results.model.placing.coords is not one of"),
        (_blocks, "results.model.grid is not a list"),
    ],
)
def test_results_of_a_map_that_are_none_are_damage(change, why, clusters, tmp_path):
    damaged = reforged(clusters / "grid.npz", change)
    refused_by_both(clusters, "cluster", damaged, tmp_path / "out", f"its header is damaged ({why}")


def test_an_artifact_without_its_seal_is_damage(calibrators):
    found = read_bundle(calibrators / "isotonic.npz")
    with (calibrators / "edited.npz").open("wb") as file:
        write_bundle(file, found | {"parameters": found["parameters"] + 1e-3})
    ran = segcal("inspect", calibrators / "edited.npz")
    assert ran.code == 5
    assert "edited.npz is not a segcal artifact: it was changed since it was written" in ran.err


def test_a_part_that_was_changed_is_not_merged(tmp_path):
    root = built("parts", tmp_path / "scene")
    found = read_bundle(root / "part2.npz")
    tree = found["tree"].tobytes().replace(b'"A"', b'"x"')
    with (root / "part2.npz").open("wb") as file:
        write_bundle(file, found | {"tree": np.frombuffer(tree, np.uint8)})
    ran = segcal("merge", root / "part1.npz", root / "part2.npz", "-o", tmp_path / "whole.npz")
    assert ran.code == 5
    assert "part2.npz is not a part of a sharded run: it was changed since it was written" in ran.err


def test_features_that_no_scan_has_are_damage(sets, tmp_path):
    features = read_bundle(sets / "plain.npz")["features"]
    for number, value in enumerate((np.inf, np.nan, 1e300)):
        damaged = reforged(sets / "plain.npz", features=np.full_like(features, value))
        ran = segcal(*of_artifact(sets, "conformal-sets", damaged, tmp_path / f"out{number}"))
        assert ran.code == 5
        assert "damaged.npz is not a segcal artifact: its arrays are damaged (features" in ran.err


def _labels_only(header: dict) -> None:
    header["spec"]["labels_only"] = True


def test_features_of_other_scans_than_the_spec_says_are_damage(sets):
    ran = segcal("inspect", reforged(sets / "plain.npz", _labels_only))
    assert ran.code == 5
    assert "its arrays are damaged (features has the shape (2, 2, 5) for 2 cases and 2 targets)" in ran.err


def test_measures_of_another_precision_are_damage(study, tmp_path):
    rows = read_bundle(study / "counts.npz")["source0_rows"]
    ran = segcal(
        "evaluate", "--from", reforged(study / "counts.npz", source0_rows=rows.astype("f4")), "-o", tmp_path / "t.csv"
    )
    assert ran.code == 5
    assert "its arrays are damaged" in ran.err


def test_a_signalling_nan_among_the_spacings_is_refused_without_a_warning(tmp_path):
    write_volume(tmp_path / "predictions" / "a.nii", np.zeros((3, 2, 3, 4), np.float32))
    content = bytearray((tmp_path / "predictions" / "a.nii").read_bytes())
    content[80:84] = bytes.fromhex("0100807f")
    (tmp_path / "predictions" / "a.nii").write_bytes(content)
    (tmp_path / "classes.json").write_text(json.dumps({"a": 0, "b": 1, "c": 2}))
    ran = segcal(*words(tmp_path, "convert", "{}/predictions", "-o", "{}/out", *COMMON))
    assert ran.code == 4
    assert "a.nii: affine is not usable" in ran.err


@pytest.mark.parametrize("scale", [None, 3e38])
def test_an_atlas_of_numbers_beyond_32_bits_is_refused_without_a_warning(scale, tmp_path):
    regions = np.array([[[0, 2**31]]], np.int64) if scale is None else np.array([[[0, 2]]], np.int16)
    nifti.write(tmp_path / "atlas.nii", regions, AFFINE)
    if scale is not None:
        content = bytearray((tmp_path / "atlas.nii").read_bytes())
        content[112:116] = struct.pack("<f", scale)
        (tmp_path / "atlas.nii").write_bytes(content)
    with pytest.raises(AtlasNotWhole, match="holds numbers beyond 32 bits"):
        read_atlas(tmp_path / "atlas.nii")


def _keyless(entry: dict) -> None:
    del entry["key"]


def _resultless(entry: dict) -> None:
    entry["result"] = {}


@pytest.mark.parametrize("change", [_keyless, _resultless])
def test_a_case_whose_record_is_damaged_is_done_again(change, tmp_path):
    root = built("run-record", tmp_path / "scene")
    record = root / "kept" / "segcal-run.json"
    document = json.loads(record.read_text())
    change(document["cases"][0])
    record.write_text(json.dumps(sealed(document)))
    ran = segcal(*words(root, *scene_of("run-record").commands[0]))
    assert ran.code == 0
    assert "2 cases, 1 done, 1 skipped" in ran.err


def reassembled(path: Path, change) -> Path:
    """A part with another tree (``change`` edits it); sums and seal are right."""
    found = read_bundle(path)
    header, tree = json.loads(str(found.pop("header"))), json.loads(found["tree"].tobytes())
    change(tree)
    found["tree"] = np.frombuffer(json.dumps(tree).encode(), np.uint8)
    with path.open("wb") as file:
        write_bundle(file, {"header": np.array(json.dumps(sealed(header, found))), **found})
    return path


def _stateless(tree: dict) -> None:
    tree["fields"]["state"] = None


def _failed(tree: dict) -> None:
    tree["fields"]["failures"] = {"tuple": ["x"]}


def _unfinished(tree: dict) -> None:
    tree["fields"]["rest"]["fields"]["conclusion"] = None


def _unlearned(tree: dict) -> None:
    tree["fields"]["rest"]["fields"]["estimator"] = 7


@pytest.mark.parametrize(
    ("change", "why"),
    [(_unfinished, "conclusion is not a Conclusion"), (_unlearned, "estimator is not a Estimator")],
)
def test_a_part_that_does_not_say_what_remains_to_be_done_is_damage(change, why, tmp_path):
    root = built("parts", tmp_path / "scene")
    reassembled(root / "part1.npz", change)
    ran = segcal("merge", root / "part1.npz", root / "part2.npz", "-o", tmp_path / "whole.npz")
    assert ran.code == 5
    assert f"part1.npz is not a part of a sharded run: its records are damaged ({why})" in ran.err


def _other_case(tree: dict) -> None:
    tree["fields"]["state"]["tuple"][1]["dict"][0][0] = "x"


def _other_numbers(tree: dict) -> None:
    del tree["fields"]["state"]["tuple"][0]["fields"]["rows"]["dict"][0][1]["tuple"][1]["dict"][0]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_stateless, "state is not a tuple"),
        (_failed, "OtherType: Share.failures.0 is not a Result"),
        (_other_case, "state is not of the cases of its part"),
        (_other_numbers, "state.rows is not of the numbers of a case"),
    ],
)
def test_records_of_a_part_that_are_none_of_its_run_are_damage(change, why, tmp_path):
    root = built("parts", tmp_path / "scene")
    reassembled(root / "part2.npz", change)
    ran = segcal("merge", root / "part1.npz", root / "part2.npz", "-o", tmp_path / "whole.npz")
    assert ran.code == 5
    assert f"part2.npz is not a part of a sharded run: its records are damaged ({why})" in ran.err


def test_a_curve_of_infinite_places_is_damage(calibrators, tmp_path):
    rows = read_bundle(calibrators / "isotonic.npz")["parameters"]
    ran = segcal("inspect", reforged(calibrators / "isotonic.npz", parameters=np.full_like(rows, np.inf)))
    assert ran.code == 5
    assert "damaged.npz is not a segcal artifact: its arrays are damaged (a curve whose places do not rise)" in ran.err


@pytest.mark.parametrize("column", ["image_counts", "image_mass", "counts", "mass"])
def test_pools_beyond_counting_are_damage(column, clusters):
    found = read_bundle(clusters / "grid.npz")[column]
    ran = segcal("inspect", reforged(clusters / "grid.npz", **{column: np.full_like(found, np.iinfo(np.int64).max)}))
    assert ran.code == 5
    assert "its pools hold more than can be counted" in ran.err


@pytest.mark.parametrize("name", ["source0_p", "source0_pooled_p", "source0_top_p", "source0_pooled_top_p"])
def test_probabilities_that_sum_to_more_than_their_voxels_are_damage(name, study, tmp_path):
    sums = read_bundle(study / "counts.npz")[name]
    damaged = reforged(study / "counts.npz", **{name: sums * 2 + 2**60})
    ran = segcal("evaluate", "--from", damaged, "-o", tmp_path / "t.csv")
    assert ran.code == 5
    assert f"{name.removeprefix('source0_')} is more than" in ran.err
