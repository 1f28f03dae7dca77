"""Every command gives every code that it can give, names it in its closing line, and says the same with ``--json``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import pytest

from segcal_cli.core.case import Case
from segcal_cli.io.case_sources import CaseReader, Decoded
from tests.cli.builders_reading import Study, nnunet_study, segcal

SCHEMA = json.loads((Path(__file__).parent / "schemas" / "envelope.json").read_text())

FITS = {
    "calibrate": ("--no-summary",),
    "conformal-sets": ("--target", "edema", "--alpha", "0.4"),
    "ntr-interval": (
        "--numerator",
        "necrosis",
        "--denominator",
        "edema,necrosis",
        "--method",
        "joint",
        "--level",
        "0.7",
    ),
    "cluster": ("--alpha", "0.4", "--method", "image"),
}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    study = nnunet_study(tmp_path_factory.mktemp("study"), ("a", "b", "c", "d"))
    for kind, options in FITS.items():
        ran = segcal(kind, "fit", *study.both, "-o", study.root / f"{kind}.npz", *options)
        assert ran.code == 0, ran.err
    return study


def output(command: str, root: Path) -> Path:
    if command.endswith(" fit"):
        return root / "out.npz"
    return root / ("out.csv" if command in ("evaluate", "calibrate compare", "ntr-interval apply") else "out")


def words(command: str, artifact: Path, predictions: Path, labels: Path, root: Path, *options: object) -> list[object]:
    """A command on these inputs."""
    kind, _, what = command.partition(" ")
    target = ["-o", output(command, root)]
    if what == "fit":
        return [kind, "fit", predictions, labels, *target, *FITS[kind], *options]
    if what == "apply":
        return [kind, "apply", artifact / f"{kind}.npz", predictions, *target, *options]
    if what == "compare":
        return [kind, what, predictions, labels, *target, "--methods", "temperature,platt", "--folds", "2", *options]
    if command == "convert":
        return ["convert", predictions, *target, *options]
    if command == "pairs":
        return ["pairs", predictions, labels, *options]
    if command == "inspect":
        return ["inspect", artifact / "calibrate.npz", *options]
    plots = ["--plots", "mass", "--format", "svg"] if command == "reliability" else []
    more = ["--artifact", artifact / "calibrate.npz", "--allow-overlap", "--bootstrap", "0"]
    return [command, predictions, labels, *target, *more, *plots, *options]


COMMANDS = (
    *(f"{kind} {what}" for kind in FITS for what in ("fit", "apply")),
    *("calibrate compare", "evaluate", "reliability", "convert", "pairs"),
)


def checked(code: int, *arguments: object) -> tuple[str, dict]:
    """Run with ``--json``: the closing line and the document say the same code. Returns all that was said, and the
    document.
    """
    said = segcal(*arguments, "--json")
    assert said.code == code, said.err
    assert said.closing.startswith("segcal: ")
    assert said.closing.endswith(f" (exit {code})")
    assert "Traceback" not in said.err
    document = json.loads(said.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    jsonschema.validate(document, SCHEMA)
    assert document["exit_code"] == code
    return said.err.rstrip("\n"), document


@pytest.mark.parametrize("command", COMMANDS)
def test_0(command, study, tmp_path):
    checked(0, *words(command, study.root, *study.both, tmp_path))


@pytest.mark.parametrize("command", [*(f"{kind} fit" for kind in FITS), "calibrate apply", "convert"])
def test_0_without_json_leaves_stdout_empty(command, study, tmp_path):
    said = segcal(*words(command, study.root, *study.both, tmp_path))
    assert (said.code, said.out) == (0, "")


@pytest.mark.parametrize("command", COMMANDS)
def test_2(command, study, tmp_path):
    _, document = checked(2, *words(command, study.root, tmp_path / "nowhere", study.labels, tmp_path))
    assert "nowhere does not exist" in document["failures"][0]["message"]


WRITTEN = {
    "calibrate apply": "a_desc-calibrated_probseg.nii.gz", "conformal-sets apply": "a_sets.nii.gz",
    "cluster apply": "a_sets.nii.gz", "convert": "a_probseg.nii.gz", "reliability": "report.html",
}  # fmt: skip
"""What a command that fills a folder writes there."""


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "pairs"])
def test_2_for_an_output_that_exists_or_lies_in_an_input(command, study, tmp_path):
    target = output(command, tmp_path)
    if command in WRITTEN:
        target.mkdir()
        target = target / WRITTEN[command]
    target.write_bytes(b"mine")
    assert "give --overwrite" in checked(2, *words(command, study.root, *study.both, tmp_path))[0]
    assert target.read_bytes() == b"mine"
    inside = words(command, study.root, *study.both, study.predictions)
    assert "the next run would read its own outputs" in checked(2, *inside)[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_3(command, study, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".hidden.npz").write_bytes(b"x")
    checked(3, *words(command, study.root, tmp_path / "empty", study.labels, tmp_path))


def broken(study: Study, root: Path, *cases: str) -> Path:
    shutil.copytree(study.predictions, root / "broken")
    for case in cases:
        (root / "broken" / f"{case}.npz").write_bytes(b"")
    return root / "broken"


@pytest.mark.parametrize("command", COMMANDS)
def test_4(command, study, tmp_path):
    predictions = broken(study, tmp_path, *study.cases)
    said, document = checked(4, *words(command, study.root, predictions, study.labels, tmp_path))
    if command != "pairs":
        assert said.endswith("4 of 4 inputs are unusable, nothing written (exit 4)")
        assert [failure["file"] for failure in document["failures"]] == ["a.npz", "b.npz", "c.npz", "d.npz"]


@pytest.mark.parametrize("command", [f"{kind} apply" for kind in FITS])
def test_5(command, study, tmp_path):
    kind = command.split()[0]
    other = next(name for name in FITS if name != kind)
    (tmp_path / "artifacts").mkdir()
    for damage in ("absent", "truncated", "of another kind"):
        target = tmp_path / "artifacts" / f"{kind}.npz"
        target.unlink(missing_ok=True)
        if damage == "truncated":
            target.write_bytes((study.root / f"{kind}.npz").read_bytes()[:300])
        elif damage == "of another kind":
            shutil.copy(study.root / f"{other}.npz", target)
        said, _ = checked(5, *words(command, tmp_path / "artifacts", *study.both, tmp_path))
        assert f"{kind}.npz is " in said
        assert not output(command, tmp_path).exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_8(command, study, tmp_path):
    if command == "pairs":
        pytest.skip("pairs lists what is wrong, and leaves with 4")
    predictions = broken(study, tmp_path, "b")
    options = [] if command == "convert" or command.endswith("apply") else ["--on-failure", "continue"]
    arguments = words(command, study.root, predictions, study.labels, tmp_path, *options)
    said, document = checked(8, *arguments)
    assert said.endswith("segcal: 4 cases, 3 done, 1 failed: b (exit 8)")
    assert (document["status"], [failure["case"] for failure in document["failures"]]) == ("partial", ["b"])
    assert output(command, tmp_path).exists()


@pytest.mark.parametrize("command", ["convert", *(f"{kind} apply" for kind in FITS)])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--overwrite", "--skip-existing"], "--overwrite does every case again, --skip-existing only what changed"),
        (["--min-age", "-1"], "--min-age -1 is not allowed; give seconds, 0 or more"),
        (["-j", "-1"], "--jobs -1 is not allowed; give 1 or more, or 0 for all usable cores"),
        (["--allow-partial", "--on-failure", "stop"], "--allow-partial has no meaning where the first failure stops"),
    ],
)
def test_what_contradicts_itself_is_a_usage_error_before_anything_is_made(command, options, says, study, tmp_path):
    said, _ = checked(2, *words(command, study.root, *study.both, tmp_path), *options)
    assert said.startswith(f"segcal: {says}")
    assert list(tmp_path.iterdir()) == []


def _reading(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Reading the second case ends in this."""
    real = CaseReader.complete

    def complete(self: CaseReader, decoded: Decoded) -> Case:
        if decoded.source.id == "b":
            raise error
        return real(self, decoded)

    monkeypatch.setattr(CaseReader, "complete", complete)


@pytest.mark.parametrize("command", COMMANDS)
def test_1(command, study, tmp_path, monkeypatch):
    _reading(monkeypatch, ZeroDivisionError("nobody foresaw this"))
    options = ["--prove"] if command == "pairs" else []
    said = segcal(*words(command, study.root, *study.both, tmp_path, *options), "--json")
    assert said.code == 1
    what = "ZeroDivisionError in b: nobody foresaw this. A bug in segcal; please report it with --log-file"
    assert said.closing == f"segcal: {what} (exit 1)"
    document = json.loads(said.out)
    jsonschema.validate(document, SCHEMA)
    assert (document["status"], document["exit_code"]) == ("failed", 1)


@pytest.mark.parametrize("command", COMMANDS)
def test_130(command, study, tmp_path, monkeypatch):
    _reading(monkeypatch, KeyboardInterrupt())
    options = ["--prove"] if command == "pairs" else []
    said, document = checked(130, *words(command, study.root, *study.both, tmp_path, *options))
    assert said.splitlines()[-1].startswith("segcal: interrupted ")
    assert document["status"] == "failed"


def test_inspect_and_merge_have_their_codes_too(study, tmp_path):
    artifact, part, out = study.root / "calibrate.npz", tmp_path / "part.npz", tmp_path / "out.npz"
    segcal("calibrate", "fit", *study.both, "-o", part, "--shard", "1/2", *FITS["calibrate"])
    checked(0, "inspect", artifact)
    checked(0, "inspect", part)
    checked(5, "inspect", study.predictions / "a.npz")
    checked(5, "inspect", tmp_path / "nowhere.npz")
    checked(2, "inspect", artifact, "--alpha", "0.1")
    assert "part 2 of 2 is missing" in checked(5, "merge", part, "-o", out)[0]
    checked(5, "merge", artifact, "-o", out)
    checked(2, "merge", part, "-o", part)
    other = tmp_path / "other.npz"
    segcal("calibrate", "fit", *study.both, "-o", other, "--shard", "2/2", *FITS["calibrate"])
    checked(0, "merge", part, other, "-o", out)
    checked(2, "merge", part, other, "-o", out)
