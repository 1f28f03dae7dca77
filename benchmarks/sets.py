"""Conformal sets on BraTS-size cases next to decoding alone; distances on a crop; resplits next to sort and cumsum."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import generated
import numpy as np
from evaluating import DECODE
from processes import Contender, python, race, segcal, table

from segcal_cli.confidence.distances import signed_distance
from segcal_cli.confidence.scores import parse_score
from segcal_cli.confidence.spec import SetSpec, TargetSpec
from segcal_cli.confidence.table import row_of
from segcal_cli.confidence.targets import default_targets
from segcal_cli.confidence.validation import alpha_grid, resplit_coverages
from segcal_cli.core.observer import Silent
from segcal_cli.io import nifti
from segcal_cli.workflows.conformal_sources import open_set_inputs, set_reader
from segcal_cli.workflows.requests import LabelOptions, PredictionOptions

CASES = 2

APPLIED = ("plain", "drift", "p")
"""Folders of outputs."""

POOL, STORED, RESPLITS = 1500, 750, 1000


def run(folder: Path, runs: int) -> str:
    """Both tables."""
    work = folder / "brats-sets"
    for number in range(CASES):
        subprocess.run([sys.executable, generated.__file__, str(work), str(number)], check=True)
    classes = work / "classes.json"
    classes.write_text(json.dumps(generated.CLASSES))
    pairs = [str(path) for kind in ("predictions", "labels") for path in sorted((work / kind).iterdir())]
    common = ("--values", "probabilities", "--classes", str(classes), "--overwrite", "-q")
    both = (str(work / "predictions"), str(work / "labels"))

    def fit(score: str, *more: str) -> tuple[str, ...]:
        scores = ("--inner-score", score, "--outer-score", score)
        return segcal("conformal-sets", "fit", *both, *scores, *more, "-o", str(work / "sets.npz"), *common)

    artifact = work / "applied.npz"
    subprocess.run(
        # Two cases promise something at a high alpha only; the work is that of any other.
        segcal("conformal-sets", "fit", *both, "--joint", "none", "--alpha", "0.5", "-o", str(artifact), *common),
        check=True,
    )
    for name in APPLIED:
        # The history of drift belongs to one artifact.
        shutil.rmtree(work / name, ignore_errors=True)
    apply = ("conformal-sets", "apply", str(artifact), both[0], *common)
    contenders = [
        Contender("decoding alone (isal)", python(DECODE, *pairs)),
        Contender("fit, distance, one target", fit("distance", "--target", "edema")),
        Contender("fit, distance, three targets", fit("distance")),
        Contender("fit, log-odds, three targets", fit("log-odds")),
        Contender("apply, three targets, no drift", segcal(*apply, "--no-drift", "-o", str(work / "plain"))),
        Contender("apply, three targets", segcal(*apply, "-o", str(work / "drift"))),
        Contender("apply, p-values of both sides", segcal(*apply, "--p-values", "both", "-o", str(work / "p"))),
    ]
    title = f"conformal-sets, {CASES} softmax cases of 4 x 240 x 240 x 155 float32 .nii.gz"
    made = table(title, race(contenders, runs), "decoding alone (isal)")
    return "\n".join([made, _beyond_reading(work), _in_process()])


def _beyond_reading(work: Path) -> str:
    """Processor seconds of one case: reading it, and what a fit does with it afterwards."""
    four, lesion = work / "classes.json", work / "lesion.json"
    lesion.write_text(json.dumps({"lesion": 1}))
    one = work / "one-channel"
    for kind in ("predictions", "labels"):
        (one / kind).mkdir(parents=True, exist_ok=True)
    source = sorted((work / "predictions").iterdir())[0]
    if not (one / "predictions" / source.name).exists():
        probabilities, codes = generated.softmax_case(0)
        affine = np.eye(4)
        nifti.write(one / "predictions" / source.name, 1.0 - probabilities[:1], affine)
        nifti.write(one / "labels" / source.name, (codes > 0).astype(np.uint8), affine, intent_code=nifti.INTENT_LABEL)
    lines = ["| one case | reading, cpu s | the fit beyond it, cpu s |", "|---|---|---|"]
    for words, folder, classes, most in (
        ("one channel", one, lesion, None),
        ("four channels, one target", work, four, 1),
        ("four channels, three targets", work, four, None),
    ):
        reading = PredictionOptions(values="probabilities", classes=classes)
        inputs = open_set_inputs(
            folder / "predictions", folder / "labels", reading, LabelOptions(), Silent(), labels_only=False
        )
        reader = set_reader(inputs, None)
        targets = default_targets(inputs.space)[:most]
        case = reader(inputs.sources[0])
        read = _seconds(lambda reader=reader, inputs=inputs: reader(inputs.sources[0]), 3)
        for score in ("distance", "log-odds"):
            spec = SetSpec(tuple(TargetSpec(target, parse_score(score), parse_score(score)) for target in targets))
            fitted = _seconds(lambda case=case, spec=spec: row_of(case, spec), 5)
            lines.append(f"| {words}, {score} | {read:.2f} | {fitted:.3f} |")
    return "\n".join(lines) + "\n"


def _in_process() -> str:
    mask = np.zeros(generated.BRATS, bool)
    mask[60:100, 90:150, 80:140] = True
    near = (slice(59, 101), slice(89, 151), slice(79, 141))
    spacing = (1.0, 1.0, 1.0)
    full = _seconds(lambda: signed_distance(mask, spacing, "euclidean"), 1)
    crop = _seconds(lambda: signed_distance(mask[near], spacing, "euclidean"), 3)
    scores = np.random.default_rng(0).normal(size=POOL)
    alphas = alpha_grid(0.005, 0.5, 0.005)
    many = np.resize(scores, (RESPLITS, POOL)).copy()
    plain = _seconds(lambda: np.cumsum(np.sort(many, axis=1), axis=1), 3)
    resplits = _seconds(lambda: resplit_coverages(scores, STORED, alphas, RESPLITS, 0), 3)
    lines = [
        "| | seconds | ratio |",
        "|---|---|---|",
        f"| signed distance of 240 x 240 x 155 | {full:.3f} | {full / crop:.1f} times its crop |",
        f"| the same on a crop | {crop:.3f} | 1 |",
        f"| {RESPLITS} resplits x {len(alphas)} alphas, N = {POOL} | {resplits:.3f} | {resplits / plain:.2f} times "
        "sort and cumsum |",
        f"| numpy: sort and cumsum of {RESPLITS} x {POOL} | {plain:.3f} | 1 |",
    ]
    return "\n".join(lines) + "\n"


def _seconds(work: Callable[[], object], times: int) -> float:
    """Processor seconds of the fastest of some runs."""
    best = float("inf")
    for _ in range(times):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best
