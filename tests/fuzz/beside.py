"""More scenes: what stands beside predictions and labels, and what an earlier run left in the output folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from segcal_cli.io import journal
from tests.cli.builders import softmax, write_volume
from tests.fuzz.mutations import (
    damaged_artifact,
    damaged_bytes,
    damaged_gzip,
    damaged_lines,
    damaged_nifti,
    damaged_table,
    damaged_zip,
)
from tests.fuzz.scenes import (
    COMMON,
    EVALUATE,
    FOLDERS,
    VOLUME,
    Scene,
    Victim,
    applied,
    build_clusters,
    build_gz,
    build_record,
    build_sets,
    cases_of,
    done,
    write_classes,
    write_csv,
    write_labels,
)

SKIPPING = ("calibrate", "apply", "{}/cal.npz", "{}/predictions", "-o", "{}/kept", *COMMON, "--skip-existing")

ATLAS_FIT = ("cluster", "fit", *FOLDERS, *COMMON, "--alpha", "0.4", "-o", "{}/out/new.npz")

RATIO = ("--numerator", "class1", "--denominator", "class1,class2")


def build_journal(root: Path) -> None:
    """What a run leaves that was killed before its record: the outputs, a journal, and locks that mean nothing."""
    build_record(root)
    record = root / "kept" / "segcal-run.json"
    for entry in json.loads(record.read_text())["cases"]:
        journal.append(root / "kept" / ".segcal-journal.jsonl", entry)
    record.unlink()
    (root / "kept" / ".segcal.shard-001-of-002.lock").write_bytes(b"12345\n")


def build_maps(root: Path) -> None:
    """A map of another artifact, one atlas for all, and one for each case."""
    build_clusters(root)
    for scan in cases_of(count=4):
        atlas = np.zeros(scan.labels.shape, np.int16)
        atlas[..., 2:] = 7
        write_volume(root / "atlases" / f"{scan.name}.nii.gz", atlas)
    write_volume(root / "atlas.nii.gz", atlas)


def build_weights(root: Path) -> None:
    build_sets(root)
    names = [scan.name for scan in cases_of()]
    write_csv(root / "weights.csv", ["case", "weight"], [[name, "1.5"] for name in names])
    write_csv(root / "strata.csv", ["case", "group"], [[name, "p"] for name in names])


def build_nets(root: Path) -> None:
    """Features, the layer that they go into, scans, and masks, named as the cases; and a calibrator of the features."""
    scans = cases_of()
    (root / "features").mkdir()
    for scan in scans:
        write_volume(root / "predictions" / f"{scan.name}.nii.gz", softmax(scan.logits))
        np.savez(root / "features" / f"{scan.name}.npz", features=scan.logits.astype(np.float32))
        write_volume(root / "images" / f"{scan.name}.nii.gz", scan.logits[0])
        write_volume(root / "roi" / f"{scan.name}.nii.gz", np.ones(scan.labels.shape, np.uint8))
    np.savez(root / "layer.npz", weight=np.eye(3, dtype=np.float32), bias=np.zeros(3, np.float32))
    write_labels(root, scans)
    write_classes(root)


def build_cases(root: Path) -> None:
    """One table of cases for every command, and an artifact of every kind."""
    build_gz(root)
    names = [scan.name for scan in cases_of()]
    rows = [[name, f"predictions/{name}.nii.gz", f"labels/{name}.nii.gz", name] for name in names]
    both = [part.format(root) for part in (*FOLDERS, *COMMON)]
    done("calibrate", "fit", *both, "-o", root / "cal.npz")
    done("conformal-sets", "fit", *both, "--alpha", "0.5", "-o", root / "sets.npz")
    done("ntr-interval", "fit", *both, *RATIO, "-o", root / "ratio.npz")
    done("cluster", "fit", *both, "--alpha", "0.5", "--method", "image", "-o", root / "cluster.npz")
    write_csv(root / "cases.csv", ["case", "prediction", "label", "group"], rows)


TABLE = ("--cases", "{}/cases.csv")

SCENES = (
    Scene(
        "journal",
        build_journal,
        (
            Victim("kept/.segcal-journal.jsonl", (damaged_lines, damaged_bytes)),
            Victim("kept/.segcal.shard-001-of-002.lock", (damaged_bytes,)),
        ),
        (SKIPPING,),
    ),
    Scene(
        "maps",
        build_maps,
        (
            Victim("kmeans.npz", (damaged_artifact,)),
            Victim("atlas.nii.gz", VOLUME),
            Victim("atlases/case_01.nii.gz", VOLUME),
        ),
        (
            (*ATLAS_FIT, "--map", "{}/kmeans.npz", "--allow-overlap"),
            (*ATLAS_FIT, "--method", "atlas", "--atlas", "{}/atlas.nii.gz"),
            (*ATLAS_FIT, "--method", "atlas", "--atlas", "{}/atlases"),
        ),
    ),
    Scene(
        "weights",
        build_weights,
        (Victim("weights.csv", (damaged_table,)),),
        ((*applied("conformal-sets", "{}/plain.npz"), "--weights", "{}/weights.csv"),),
    ),
    Scene(
        "beside",
        build_nets,
        (
            Victim("features/case_01.npz", (damaged_zip,)),
            Victim("layer.npz", (damaged_zip,)),
            Victim("images/case_01.nii.gz", (damaged_gzip, damaged_nifti)),
            Victim("roi/case_01.nii.gz", (damaged_gzip, damaged_nifti)),
        ),
        (
            (
                "calibrate",
                "fit",
                *FOLDERS,
                *COMMON,
                "--method",
                "fine-tune",
                "--features",
                "{}/features",
                "--last-layer",
                "{}/layer.npz",
                "-o",
                "{}/out/new.npz",
            ),
            (*EVALUATE, "--roi", "{}/roi"),
            ("conformal-sets", "fit", *FOLDERS, *COMMON, "--alpha", "0.5", "--roi", "{}/roi", "-o", "{}/out/new.npz"),
            (
                "calibrate",
                "fit",
                *FOLDERS,
                *COMMON,
                "--method",
                "local",
                "--images",
                "{}/images",
                "--epochs",
                "1",
                "-o",
                "{}/out/new.npz",
            ),
        ),
    ),
    Scene(
        "cases",
        build_cases,
        (Victim("cases.csv", (damaged_table,)),),
        (
            ("calibrate", "fit", *FOLDERS, *COMMON, *TABLE, "-o", "{}/out/new.npz"),
            (*applied("calibrate", "{}/cal.npz"), *TABLE),
            ("conformal-sets", "fit", *FOLDERS, *COMMON, *TABLE, "--alpha", "0.5", "-o", "{}/out/new.npz"),
            (*applied("conformal-sets", "{}/sets.npz"), *TABLE),
            ("ntr-interval", "fit", *FOLDERS, *COMMON, *TABLE, *RATIO, "-o", "{}/out/new.npz"),
            (*applied("ntr-interval", "{}/ratio.npz", "{}/out/table.csv"), *TABLE),
            (
                "cluster",
                "fit",
                *FOLDERS,
                *COMMON,
                *TABLE,
                "--alpha",
                "0.5",
                "--method",
                "image",
                "-o",
                "{}/out/new.npz",
            ),
            (*applied("cluster", "{}/cluster.npz"), *TABLE),
            ("convert", "{}/predictions", "-o", "{}/out", *COMMON, *TABLE),
            (*EVALUATE, *TABLE, "--artifact", "{}/cal.npz", "--allow-overlap"),
            ("pairs", *FOLDERS, *COMMON, *TABLE, "--prove"),
        ),
    ),
)
