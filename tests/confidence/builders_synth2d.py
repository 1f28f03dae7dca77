"""Synthetic images with a known truth: one or two blobs, a third from a harder site, some without any, some unseen."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from segcal_cli.confidence.maps import MapRules
from segcal_cli.confidence.scores import parse_score
from segcal_cli.confidence.scoring import ScoringRules
from segcal_cli.confidence.spec import SetSpec, TargetSpec
from segcal_cli.confidence.table import CaseTable
from segcal_cli.confidence.targets import Target
from segcal_cli.core.case import Case
from segcal_cli.core.labels import Channel, LabelMap, LabelSpace
from segcal_cli.core.volume import Grid, Stored, Volume

FIXTURES = Path(__file__).parent / "fixtures"
LEARN, CALIBRATION, TEST = range(60), range(60, 209), range(209, 409)
LESION = LabelSpace((Channel("lesion", frozenset({1})),), "sigmoid")
TARGETS = (Target("lesion", (0,)),)


@cache
def expected():
    """The reference numbers."""
    return json.loads((FIXTURES / "expected.json").read_text())


@cache
def fixture(name):
    """The arrays of one fixture file."""
    with np.load(FIXTURES / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def number(value):
    """A number of the JSON document, infinities spelled out."""
    return float(value)


def random_field(rng, shape, sigma):
    """Smooth Gaussian field on a periodic grid, unit variance."""
    spectrum = np.fft.fftn(rng.standard_normal(shape))
    k2 = 0
    for axis, size in enumerate(shape):
        k = np.fft.fftfreq(size) * 2 * np.pi
        k2 = k2 + k.reshape([-1 if a == axis else 1 for a in range(len(shape))]) ** 2
    field = np.fft.ifftn(spectrum * np.exp(-k2 * sigma**2 / 2)).real
    return field / field.std()


def ellipse(shape, centre, radii, angle=0.0):
    """Elliptic radius of every pixel: below 1 inside."""
    yy, xx = np.mgrid[: shape[0], : shape[1]].astype(float)
    dy, dx = yy - centre[0], xx - centre[1]
    u = np.cos(angle) * dx + np.sin(angle) * dy
    v = -np.sin(angle) * dx + np.cos(angle) * dy
    return np.sqrt((u / radii[0]) ** 2 + (v / radii[1]) ** 2)


@cache
def synth2d(seed=20240922, n=409, size=40):
    """(logits float32, labels bool, site int8), each "image y x"."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((n, size, size), bool)
    logits = np.zeros((n, size, size), np.float32)
    site = np.zeros(n, np.int8)
    for i in range(n):
        hard = rng.random() < 0.3
        site[i] = int(hard)
        true_radius = np.full((size, size), np.inf)
        seen_radius = np.full((size, size), np.inf)
        for _ in range(1 + (rng.random() < 0.25)):
            centre = rng.uniform(9, size - 9, 2)
            radii = rng.uniform(3, 8, 2)
            angle = rng.uniform(0, np.pi)
            true_radius = np.minimum(true_radius, ellipse((size, size), centre, radii, angle))
            error = 2.2 if hard else 0.8
            moved = centre + rng.normal(0, error, 2)
            wrong = radii * np.exp(rng.normal(0, 0.10 + 0.1 * hard, 2))
            seen_radius = np.minimum(seen_radius, ellipse((size, size), moved, wrong, angle))
        u = rng.random()
        if u < 0.06:
            true_radius[:] = np.inf
        elif u < 0.065:
            true_radius[:] = 0
        labels[i] = true_radius + 0.12 * random_field(rng, (size, size), 2.0) < 1
        z = 7.0 * (1.0 - np.minimum(seen_radius, 2.2)) + (1.6 + 0.8 * hard) * random_field(rng, (size, size), 2.5)
        if rng.random() < 0.05:
            z = z - max(z.max(), 0) - 0.5
        logits[i] = np.round(z, 4)
    return logits, labels, site


def binary_case(id, logits, truth, *, group=None, affine=None, space=LESION, roi=None, ignored=None):
    """A case of one channel. logits, truth: "z y x" or "y x"."""
    logits = np.asarray(logits, np.float32)
    logits = logits[None] if logits.ndim == 2 else logits
    labels = None
    if truth is not None:
        codes = np.asarray(truth, np.uint8).reshape(logits.shape)
        labels = LabelMap(codes, np.array([[False, True]]), ignored)
    volume = Volume(logits[None], Grid(logits.shape, affine), "logits", Stored("float32"))
    return Case(id, group or id, space, volume, labels, roi)


def affine_of(z, y, x):
    """An affine of these voxel edges in mm."""
    return np.diag([x, y, z, 1.0])


def image(index):
    """One image as a case."""
    logits, labels, _ = synth2d()
    return binary_case(f"image_{index:03d}", logits[index], labels[index])


def rules(metric="euclidean", empty="empty", **more):
    return ScoringRules(MapRules(metric, empty), **more)


def spec_of(inner="distance", outer=None, scoring=None, share=None, standard=((0.0, 1.0), (0.0, 1.0)), **more):
    """The spec of one target; ``all cases`` and ``none`` unless said."""
    shares = (0.5, 0.5) if share is None else (share, 1.0 - share)
    entry = TargetSpec(TARGETS[0], parse_score(inner), parse_score(outer or inner), *shares, standard)
    options = {"joint": "none", "present_only": False, "rules": scoring or rules(), "length": "px", **more}
    return SetSpec((entry,), **options)


def reference_table(name, which, gamma=None, groups=None, stratum=None):
    """The table of reference scores of these images. name: of the score, ":" written "_"."""
    scores = fixture("scores2d")
    _, labels, _ = synth2d()
    which = np.asarray(list(which))
    n = which.size
    return plain_table(
        scores[f"tau_{name}"][which],
        scores[f"gamma_{gamma or name}"][which],
        present=labels[which].reshape(n, -1).any(axis=1),
        groups=groups,
        stratum=stratum,
        ids=[f"image_{i:03d}" for i in which],
    )


PER_TARGET = (
    "tau",
    "gamma",
    "present",
    "missed_outside",
    "features",
    "predicted_voxels",
    "truth_voxels",
    "stratum",
)


def of_two_targets(table):
    """The table with its one target twice."""
    return replace(table, **{name: np.repeat(getattr(table, name), 2, axis=1) for name in PER_TARGET})


def plain_table(tau, gamma, *, present=None, groups=None, stratum=None, ids=None):
    """A table of one target that holds scores and nothing else of interest."""
    n = len(tau)
    ids = tuple(ids or (f"c{i:04d}" for i in range(n)))
    zeros = np.zeros((n, 1), np.int64)
    return CaseTable(
        ids=ids,
        groups=ids if groups is None else tuple(str(group) for group in groups),
        tau=np.asarray(tau, float)[:, None],
        gamma=np.asarray(gamma, float)[:, None],
        present=np.ones((n, 1), bool) if present is None else np.asarray(present)[:, None],
        missed_outside=zeros,
        features=np.zeros((n, 1, 5)),
        predicted_voxels=zeros,
        truth_voxels=zeros,
        spacing=np.ones((n, 3)),
        voxel_volume=np.ones(n),
        grid_voxels=np.full(n, 1600),
        stratum=zeros if stratum is None else np.asarray(stratum, np.int64)[:, None],
    )
