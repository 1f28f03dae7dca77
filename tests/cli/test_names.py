"""Names of people's files and classes pass every output unharmed, and nothing else of an input gets there."""

from __future__ import annotations

import csv
import gzip
import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from tests.cli.builders import AFFINE, make_scans, segcal, softmax, write_volume
from tests.io.builders_nifti import edit

IDS = ('a "quoted", case', "b ümlaut [red]", "c it's <b>bold & {0} %s", "d = 1")
"""Ids that may be file names, with everything that a table, a page or a terminal could stumble over."""

NAMES = ("background", 'lesion "<i>', "[/red] core")

MARKER = "JaneDoe19700101"
"""Stands in every field of the inputs that could name a patient."""


def marked(path: Path) -> None:
    """The marker in descrip, intent_name, db_name and aux_file, and in an extension behind the header."""
    for offset in (148, 328, 14, 228):
        edit(path, offset, MARKER.encode())
    content = gzip.decompress(path.read_bytes())
    body = MARKER.encode().ljust(24, b"\0")
    head = bytearray(content[:348] + b"\1\0\0\0" + struct.pack("<ii", 32, 6) + body)
    head[108:112] = struct.pack("<f", len(head))
    path.write_bytes(gzip.compress(bytes(head) + content[352:]))


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Every command run on folders with such names; the folder of all outputs, and all that was said."""
    root = tmp_path_factory.mktemp(MARKER) / "study"
    for scan, case in zip(make_scans(4, 3), IDS, strict=True):
        for part, array in (("predictions", softmax(scan.logits)), ("labels", scan.labels)):
            write_volume(root / part / f"{case}.nii.gz", array, AFFINE)
            marked(root / part / f"{case}.nii.gz")
    (root / "classes.json").write_text(json.dumps(dict(zip(NAMES, range(3), strict=True))))
    out = root / "out"
    out.mkdir()
    read = ["--values", "probabilities", "--classes", root / "classes.json", "--log-file", out / "log.txt"]
    both = [root / "predictions", root / "labels", *read]
    new = [root / "predictions", *read]
    ratio = ["--numerator", NAMES[2], "--denominator", ",".join(NAMES[1:])]
    said = ""
    for command in (
        ["calibrate", "fit", *both, "-o", out / "cal.npz"],
        ["calibrate", "apply", out / "cal.npz", *new, "-o", out / "calibrated"],
        ["conformal-sets", "fit", *both, "--alpha", "0.5", "-o", out / "sets.npz"],
        ["conformal-sets", "apply", out / "sets.npz", *new, "-o", out / "sets"],
        ["ntr-interval", "fit", *both, *ratio, "-o", out / "ratio.npz"],
        ["ntr-interval", "apply", out / "ratio.npz", *new, "-o", out / "ratio.csv"],
        ["cluster", "fit", *both, "--method", "grid", "--grid", "2x2x1", "--alpha", "0.5", "-o", out / "clusters.npz"],
        ["cluster", "apply", out / "clusters.npz", *new, "-o", out / "clusters"],
        ["convert", *new, "-o", out / "converted"],
        ["evaluate", *both, "--artifact", out / "sets.npz", "--allow-overlap", "-o", out / "table.csv", "--summary",
         out / "summary.csv", "--histograms", out / "counts.npz"],
        ["reliability", *both, "--format", "svg", "-o", out / "report"],
        ["inspect", out / "cal.npz", "--json"],
        ["evaluate", *both, "-o", out / "again.csv", "--json"],
    ):  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            for function in ("socket.gethostname", "platform.node", "getpass.getuser"):
                patch.setattr(function, lambda: MARKER)
            ran = segcal(*command, environment=dict.fromkeys(("USER", "LOGNAME", "HOSTNAME"), MARKER))
        assert ran.code == 0, ran.stderr
        said += ran.stdout + ran.stderr
    return out, said


def content_of(path: Path) -> bytes:
    """What a file holds, unpacked where it is packed."""
    data = path.read_bytes()
    return gzip.decompress(data) if path.name.endswith(".gz") else data


def test_ids_come_back_from_every_table(outputs):
    out, _ = outputs
    tables = [path for path in out.rglob("*.csv") if "case" in path.read_text(encoding="utf-8").split("\n", 1)[0]]
    assert len(tables) >= 4
    for path in tables:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, strict=True))
        assert {row["case"] for row in rows if row.get("case")} <= set(IDS), path
        if "class" in rows[0]:
            assert {row["class"] for row in rows} & set(NAMES), path


def test_ids_come_back_from_every_document(outputs):
    out, _ = outputs
    for path in [*out.rglob("*.json")]:
        json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(name))
    for name in ("cal", "sets", "ratio", "clusters", "counts"):
        with np.load(out / f"{name}.npz", allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
        assert set(header["case_ids"]) <= set(IDS)
        assert [entry["name"] for entry in header["classes"]] == list(NAMES)


def test_every_output_file_lies_in_its_folder_under_the_name_of_its_case(outputs):
    out, _ = outputs
    for folder in ("calibrated", "sets", "converted", "clusters"):
        volumes = [path.name for path in (out / folder).rglob("*.nii.gz")]
        assert volumes
        for case in IDS:
            assert any(name.startswith(f"{case}_") for name in volumes), (folder, case)


def test_pages_show_names_as_text(outputs):
    out, _ = outputs
    page = (out / "report" / "report.html").read_text(encoding="utf-8")
    assert "<b>bold" not in page
    assert "<i>" not in page
    assert "lesion &#34;&lt;i&gt;" in page or "lesion &quot;&lt;i&gt;" in page


def test_messages_keep_the_names_and_no_control_character(outputs):
    out, said = outputs
    for text in (said, (out / "log.txt").read_text(encoding="utf-8")):
        assert all(c.isprintable() or c == "\n" for c in text)
        assert "[/red] core" in text


def test_nothing_else_of_the_input_gets_into_outputs(outputs):
    """The marker is in the headers of the inputs, in the path of their folder, and the name of user and host."""
    out, _ = outputs
    files = [path for path in out.rglob("*") if path.is_file() and path.name != "log.txt"]
    assert len(files) > 40
    for path in files:
        content = content_of(path)
        for encoding in ("utf-8", "utf-32-le"):  # numpy keeps text as UTF-32
            assert MARKER.encode(encoding) not in content, path


def test_the_log_names_no_patient_beyond_the_ids_of_cases(outputs):
    """Paths that the user gave may be said to the user; what stands inside the files may not."""
    out, _ = outputs
    log = (out / "log.txt").read_text(encoding="utf-8").replace(str(out.parent), "")
    assert MARKER not in log
    assert io.StringIO(log).readline()
