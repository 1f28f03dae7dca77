"""What is damaged, and what is then run on it: small folders, a victim among their files, and commands.

A scene is built once. For each mutation one of its victims is overwritten with damaged bytes, one of its commands runs
in this process through the command line, and the victim is put back.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tests.cli.builders import Scan, make_scans, sigmoid, softmax, write_npz, write_volume
from tests.cli.builders_reading import segcal
from tests.fuzz.mutations import (
    Damage,
    damaged_artifact,
    damaged_bundle,
    damaged_bytes,
    damaged_gzip,
    damaged_json,
    damaged_nifti,
    damaged_png,
    damaged_table,
    damaged_zip,
)

OUT = "out"
"""Below it every command of a scene writes; it is removed after each mutation."""


@dataclass(frozen=True, slots=True)
class Victim:
    """A file below the scene's folder, and the ways in which it is damaged."""

    file: str
    damages: tuple[Damage, ...]


@dataclass(frozen=True, slots=True)
class Scene:
    """victims: drawn evenly. commands: their words; ``{}`` is the scene's folder."""

    name: str
    build: Callable[[Path], None]
    victims: tuple[Victim, ...]
    commands: tuple[tuple[str, ...], ...]


def cases_of(classes: int = 3, count: int = 2) -> list[Scan]:
    return make_scans(count, classes, shape=(2, 4, 5))


def done(*arguments: object) -> None:
    """A command that prepares a scene and must succeed."""
    ran = segcal(*arguments, "-q")
    assert ran.code == 0, ran.err


def write_labels(root: Path, scans: Sequence[Scan], suffix: str = ".nii.gz") -> None:
    for scan in scans:
        write_volume(root / "labels" / f"{scan.name}{suffix}", scan.labels)


def write_classes(root: Path, count: int = 3) -> None:
    table = {"background": 0, **{f"class{i}": i for i in range(1, count)}} if count > 1 else {"lesion": 1}
    (root / "classes.json").write_text(json.dumps(table))


def _volumes(root: Path, suffix: str) -> None:
    scans = cases_of()
    for scan in scans:
        write_volume(root / "predictions" / f"{scan.name}{suffix}", softmax(scan.logits))
    write_labels(root, scans, suffix)
    write_classes(root)


def build_gz(root: Path) -> None:
    _volumes(root, ".nii.gz")


def build_nii(root: Path) -> None:
    _volumes(root, ".nii")


def build_nnunet(root: Path) -> None:
    """As nnU-Net leaves it: arrays, segmentations, ``dataset.json``, ``plans.json``; and labels."""
    scans = cases_of()
    for scan in scans:
        folder = root / "predictions"
        folder.mkdir(exist_ok=True)
        with (folder / f"{scan.name}.npz").open("wb") as file:
            np.savez_compressed(file, probabilities=softmax(scan.logits))
        write_volume(folder / f"{scan.name}.nii.gz", scan.logits.argmax(axis=0).astype(np.uint8))
    table = {"background": 0, "class1": 1, "class2": 2, "ignore": 3}
    (root / "predictions" / "dataset.json").write_text(json.dumps({"labels": table, "file_ending": ".nii.gz"}))
    (root / "predictions" / "plans.json").write_text(json.dumps({"image_reader_writer": "SimpleITKIO"}))
    write_labels(root, scans)


def build_regions(root: Path) -> None:
    """nnU-Net with two regions, one inside the other."""
    folder = root / "predictions"
    folder.mkdir()
    for number in range(2):
        rng = np.random.default_rng(number)
        logits = np.sort(rng.normal(size=(2, 2, 4, 5)), axis=0)[::-1].astype(np.float32)
        p = sigmoid(logits)
        write_npz(folder / f"case_{number}.npz", probabilities=p)
        write_volume(folder / f"case_{number}.nii.gz", (p > 0.5).sum(axis=0).astype(np.uint8))
        write_volume(root / "labels" / f"case_{number}.nii.gz", (logits > 0.3).sum(axis=0).astype(np.uint8))
    table = {"labels": {"background": 0, "whole": [1, 2], "core": [2]}, "regions_class_order": [1, 2]}
    (folder / "dataset.json").write_text(json.dumps(table))
    (folder / "plans.json").write_text(json.dumps({"image_reader_writer": "SimpleITKIO"}))


def build_npy(root: Path) -> None:
    scans = cases_of()
    for scan in scans:
        for part, array in (("predictions", softmax(scan.logits)), ("labels", scan.labels)):
            (root / part).mkdir(exist_ok=True)
            np.save(root / part / f"{scan.name}.npy", array)
    write_classes(root)


def build_png(root: Path) -> None:
    scans = make_scans(2, 1, shape=(1, 12, 14))
    for part in ("predictions", "labels"):
        (root / part).mkdir()
    for number, scan in enumerate(scans):
        pixels = np.rint(sigmoid(scan.logits[0, 0]) * 65535).astype(np.uint16)
        Image.fromarray(pixels).save(root / "predictions" / f"{scan.name}.png")
        label = Image.fromarray(scan.labels[0])
        if number:
            label = label.convert("P")
            label.putpalette([0, 0, 0, 255, 0, 0])
        label.save(root / "labels" / f"{scan.name}.png")
    write_classes(root, 1)


def build_tiff(root: Path) -> None:
    import tifffile

    scans = make_scans(2, 1, shape=(3, 6, 7))
    for part in ("predictions", "labels"):
        (root / part).mkdir()
    for number, scan in enumerate(scans):
        packing = "zlib" if number else None
        p = sigmoid(scan.logits[0]).astype(np.float32)
        tifffile.imwrite(root / "predictions" / f"{scan.name}.tif", p, photometric="minisblack", compression=packing)
        tifffile.imwrite(root / "labels" / f"{scan.name}.tif", scan.labels, photometric="minisblack")
        for part in ("predictions", "labels"):
            (root / part / f"{scan.name}.json").write_text(json.dumps({"spacing": [2.0, 1.0, 1.0]}))
    write_classes(root, 1)


def build_tables(root: Path) -> None:
    """A table of cases, one of patients, one of weights, beside what they speak of."""
    _volumes(root, ".nii.gz")
    scans = cases_of()
    rows = [
        [s.name, f"predictions/{s.name}.nii.gz", f"labels/{s.name}.nii.gz", f"p{i // 2}"] for i, s in enumerate(scans)
    ]
    write_csv(root / "cases.csv", ["case", "prediction", "label", "group"], rows)
    write_csv(root / "groups.csv", ["case", "group"], [[s.name, f"patient {i // 2}"] for i, s in enumerate(scans)])


def write_csv(path: Path, header: list[str], rows: list[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


COMMON = ("--values", "probabilities", "--classes", "{}/classes.json")

FOLDERS = ("{}/predictions", "{}/labels")

CALIBRATORS = ("temperature", "platt", "isotonic", "vector", "auxiliary")


def build_calibrators(root: Path) -> None:
    _volumes(root, ".nii.gz")
    both = [part.format(root) for part in (*FOLDERS, *COMMON)]
    for method in CALIBRATORS:
        more = ("--dim", "2") if method == "auxiliary" else ()
        done("calibrate", "fit", *both, "--method", method, *more, "-o", root / f"{method}.npz")


def build_sets(root: Path) -> None:
    _volumes(root, ".nii.gz")
    both = [part.format(root) for part in (*FOLDERS, *COMMON)]
    done("conformal-sets", "fit", *both, "--alpha", "0.5", "-o", root / "plain.npz")
    done("conformal-sets", "fit", *both, "--alpha", "0.5", "--inner-score", "distance", "--outer-score", "distance",
          "-o", root / "distance.npz")  # fmt: skip
    apply = ["conformal-sets", "apply", root / "plain.npz", root / "predictions", *COMMON[:2]]
    done(*apply, "--classes", root / "classes.json", "--history", root / "history.npz", "-o", root / OUT)
    shutil.rmtree(root / OUT)


def build_ratios(root: Path) -> None:
    _volumes(root, ".nii.gz")
    both = [part.format(root) for part in (*FOLDERS, *COMMON)]
    done("ntr-interval", "fit", *both, "--numerator", "class1", "--denominator", "class1,class2", "-o",
          root / "ratio.npz")  # fmt: skip


CLUSTERS = ("kmeans", "grid", "annuli")


def build_clusters(root: Path) -> None:
    scans = cases_of(count=4)
    for scan in scans:
        write_volume(root / "predictions" / f"{scan.name}.nii.gz", softmax(scan.logits))
    write_labels(root, scans)
    write_classes(root)
    both = [part.format(root) for part in (*FOLDERS, *COMMON)]
    for method in CLUSTERS:
        more = {"grid": ("--grid", "2x2x1"), "annuli": ("--shape", "circle")}.get(method, ())
        done("cluster", "fit", *both, "--alpha", "0.4", "--method", method, *more, "-o", root / f"{method}.npz")


def build_study(root: Path) -> None:
    _volumes(root, ".nii.gz")
    both = [part.format(root) for part in (*FOLDERS, *COMMON)]
    done("evaluate", *both, "-o", root / "metrics.csv", "--histograms", root / "counts.npz")


def build_record(root: Path) -> None:
    """A folder that an earlier run wrote, with its record, and the options in a file."""
    _volumes(root, ".nii.gz")
    both = [part.format(root) for part in (*FOLDERS, *COMMON)]
    done("calibrate", "fit", *both, "-o", root / "cal.npz")
    done("calibrate", "apply", root / "cal.npz", root / "predictions", *both[2:], "-o", root / "kept")
    (root / "options.toml").write_text('values = "probabilities"\non-failure = "continue"\n\n[evaluate]\njobs = 1\n')


def build_parts(root: Path) -> None:
    """The parts of a fit in two shards."""
    _volumes(root, ".nii.gz")
    both = [part.format(root) for part in (*FOLDERS, *COMMON)]
    for shard in ("1", "2"):
        done("ntr-interval", "fit", *both, "--numerator", "class1", "--denominator", "class1,class2", "--shard",
              f"{shard}/2", "-o", root / f"part{shard}.npz")  # fmt: skip


def build_shards(root: Path) -> None:
    """A folder that two shards have written, with a case that failed; and what two shards have measured."""
    _volumes(root, ".nii.gz")
    both = [part.format(root) for part in (*FOLDERS, *COMMON)]
    done("calibrate", "fit", *both, "-o", root / "cal.npz")
    for shard in ("1", "2"):
        done("evaluate", *both, "--artifact", f"t={root / 'cal.npz'}", "--allow-overlap", "--shard", f"{shard}/2",
             "-o", root / f"measured{shard}.npz")  # fmt: skip
    (root / "predictions" / "torn.nii.gz").write_bytes(b"\x1f\x8b\x08")
    for shard in ("1", "2"):
        apply = ("calibrate", "apply", root / "cal.npz", root / "predictions", *both[2:])
        said = segcal(*apply, "--shard", f"{shard}/2", "-o", root / "kept")
        assert said.code in (0, 8), said.stderr


VOLUME = (damaged_gzip, damaged_nifti, damaged_nifti)
PLAIN = (damaged_bytes, damaged_nifti, damaged_nifti)

PAIRS = ("pairs", *FOLDERS, "--prove", *COMMON)
CONVERT = ("convert", "{}/predictions", "-o", "{}/out", *COMMON)
EVALUATE = ("evaluate", *FOLDERS, "-o", "{}/out/table.csv", *COMMON, "--bootstrap", "20", "--metrics", "ece,dice")


def applied(command: str, artifact: str, out: str = "{}/out") -> tuple[str, ...]:
    return (command, "apply", artifact, "{}/predictions", "-o", out, *COMMON)


SCENES = (
    Scene(
        "gzipped-nifti",
        build_gz,
        (Victim("predictions/case_01.nii.gz", VOLUME), Victim("labels/case_01.nii.gz", VOLUME)),
        (PAIRS, PAIRS, CONVERT, EVALUATE),
    ),
    Scene(
        "nifti",
        build_nii,
        (Victim("predictions/case_01.nii", PLAIN), Victim("labels/case_01.nii", PLAIN)),
        (PAIRS, PAIRS, CONVERT, EVALUATE),
    ),
    Scene(
        "nnunet",
        build_nnunet,
        (Victim("predictions/case_01.npz", (damaged_zip,)), Victim("predictions/case_01.nii.gz", VOLUME)),
        (PAIRS[:4], PAIRS[:4], CONVERT[:4], EVALUATE[:5]),
    ),
    Scene(
        "nnunet-json",
        build_regions,
        (Victim("predictions/dataset.json", (damaged_json,)), Victim("predictions/plans.json", (damaged_json,))),
        (PAIRS[:4], CONVERT[:4]),
    ),
    Scene(
        "npy",
        build_npy,
        (Victim("predictions/case_01.npy", (damaged_bytes,)), Victim("labels/case_01.npy", (damaged_bytes,))),
        (PAIRS, EVALUATE),
    ),
    Scene(
        "png",
        build_png,
        (
            Victim("predictions/case_01.png", (damaged_bytes, damaged_png)),
            Victim("labels/case_01.png", (damaged_bytes, damaged_png)),
        ),
        ((*PAIRS[:4], "--classes", "{}/classes.json"), (*EVALUATE[:5], "--classes", "{}/classes.json")),
    ),
    Scene(
        "tiff",
        build_tiff,
        (
            Victim("predictions/case_00.tif", (damaged_bytes,)),
            Victim("predictions/case_01.tif", (damaged_bytes,)),
            Victim("labels/case_01.tif", (damaged_bytes,)),
            Victim("predictions/case_01.json", (damaged_json,)),
        ),
        (PAIRS, CONVERT),
    ),
    Scene(
        "tables",
        build_tables,
        (Victim("cases.csv", (damaged_table,)), Victim("groups.csv", (damaged_table,))),
        (
            ("pairs", *FOLDERS, *COMMON, "--cases", "{}/cases.csv"),
            ("pairs", *FOLDERS, *COMMON, "--groups", "{}/groups.csv"),
            (*EVALUATE, "--cases", "{}/cases.csv"),
            (*EVALUATE, "--groups", "{}/groups.csv"),
        ),
    ),
    Scene(
        "class-table",
        build_nii,
        (Victim("classes.json", (damaged_json,)),),
        (PAIRS, CONVERT, EVALUATE),
    ),
    Scene(
        "calibrate-artifacts",
        build_calibrators,
        tuple(Victim(f"{method}.npz", (damaged_artifact,)) for method in CALIBRATORS),
        (
            ("inspect", "{victim}"),
            ("inspect", "{victim}", "--json"),
            applied("calibrate", "{victim}"),
            (*EVALUATE, "--artifact", "{victim}", "--allow-overlap"),
            (*CONVERT, "--calibrator", "{victim}"),
        ),
    ),
    Scene(
        "conformal-sets-artifacts",
        build_sets,
        (Victim("plain.npz", (damaged_artifact,)), Victim("distance.npz", (damaged_artifact,))),
        (
            ("inspect", "{victim}"),
            ("inspect", "{victim}", "--json"),
            applied("conformal-sets", "{victim}"),
            (*EVALUATE, "--artifact", "{victim}", "--allow-overlap"),
        ),
    ),
    Scene(
        "history",
        build_sets,
        (Victim("history.npz", (damaged_artifact,)),),
        ((*applied("conformal-sets", "{}/plain.npz"), "--history", "{victim}"),),
    ),
    Scene(
        "ntr-interval-artifacts",
        build_ratios,
        (Victim("ratio.npz", (damaged_artifact,)),),
        (
            ("inspect", "{victim}"),
            ("inspect", "{victim}", "--json"),
            applied("ntr-interval", "{victim}", "{}/out/table.csv"),
            (*EVALUATE, "--artifact", "{victim}", "--allow-overlap"),
        ),
    ),
    Scene(
        "cluster-artifacts",
        build_clusters,
        tuple(Victim(f"{method}.npz", (damaged_artifact,)) for method in CLUSTERS),
        (
            ("inspect", "{victim}"),
            ("inspect", "{victim}", "--json"),
            applied("cluster", "{victim}"),
            (*EVALUATE, "--artifact", "{victim}", "--allow-overlap"),
        ),
    ),
    Scene(
        "run-record",
        build_record,
        (Victim("kept/segcal-run.json", (damaged_json,)),),
        (("calibrate", "apply", "{}/cal.npz", "{}/predictions", "-o", "{}/kept", *COMMON, "--skip-existing"),),
    ),
    Scene(
        "config",
        build_record,
        (Victim("options.toml", (damaged_bytes,)),),
        (
            ("pairs", *FOLDERS, "--classes", "{}/classes.json", "--config", "{}/options.toml"),
            (*EVALUATE[:5], "--classes", "{}/classes.json", "--config", "{}/options.toml", "--print-config"),
        ),
    ),
    Scene(
        "parts",
        build_parts,
        (Victim("part1.npz", (damaged_bundle,)), Victim("part2.npz", (damaged_bundle,))),
        (
            ("merge", "{}/part1.npz", "{}/part2.npz", "-o", "{}/out/whole.npz"),
            ("inspect", "{victim}"),
        ),
    ),
    Scene(
        "shard-records",
        build_shards,
        tuple(Victim(f"kept/segcal-run.shard-00{shard}-of-002.json", (damaged_json,)) for shard in (1, 2)),
        (
            (
                "merge",
                *(f"{{}}/kept/segcal-run.shard-00{n}-of-002.json" for n in (1, 2)),
                "-o",
                "{}/kept",
                "--overwrite",
            ),
        ),
    ),
    Scene(
        "measured-parts",
        build_shards,
        tuple(Victim(f"measured{shard}.npz", (damaged_bundle,)) for shard in (1, 2)),
        (
            (
                "merge",
                "{}/measured1.npz",
                "{}/measured2.npz",
                "-o",
                "{}/out/table.csv",
                "--histograms",
                "{}/out/all.npz",
            ),
        ),
    ),
    Scene(
        "saved-counts",
        build_study,
        (Victim("counts.npz", (damaged_artifact,)),),
        (
            ("inspect", "{victim}"),
            ("evaluate", "--from", "{victim}", "-o", "{}/out/table.csv", "--bootstrap", "20"),
            ("evaluate", "--from", "{victim}", "-o", "{}/out/table.csv", "--bootstrap", "20", "--json"),
        ),
    ),
)
