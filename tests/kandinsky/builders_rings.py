"""Rings: deterministic predictions and labels whose score law is that of four rings, two images of a patient.

Random numbers come from numpy's legacy RandomState, frozen by policy. Probabilities are multiples of 1/2048, exact in
float32, as is 1 - p; they sum to 1.
"""

from functools import cache
from pathlib import Path

import numpy as np

from segcal_cli.core.labels import Channel, LabelMap, LabelSpace
from segcal_cli.core.volume import Grid, Stored, Volume
from segcal_cli.kandinsky.codes import score_codes
from segcal_cli.kandinsky.frames import Frame
from segcal_cli.kandinsky.places import choose_placing
from segcal_cli.kandinsky.views import AtlasCase

FIXTURES = Path(__file__).parent / "fixtures"
EXACT = np.load(FIXTURES / "exact.npz")
AUTHORS = np.load(FIXTURES / "authors.npz")

UNIT = 2048
HEIGHT, WIDTH = 24, 32
SPACE = LabelSpace(
    tuple(Channel(name, frozenset([value])) for value, name in enumerate(("back", "organ", "other"))), "softmax"
)
SEEDS = {"calibration": (20240, 80), "test": (20241, 200)}
PLACING = choose_placing([Frame.of(Grid((1, HEIGHT, WIDTH)))], None, None, has_roi=False)[0]


def ring_map():
    """int "row column": the true ring of each pixel."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    r = np.sqrt((columns - WIDTH // 2 - 2.0) ** 2 + (HEIGHT // 2 - rows + 1.0) ** 2)
    return (r > 5).astype(int) + (r > 9) + (r > 13)


@cache
def images(part):
    """(probabilities uint16 "image class row column" in 1/2048, labels uint8, patient per image)."""
    seed, n = SEEDS[part]
    rs = np.random.RandomState(seed)
    ring = ring_map()
    gain = np.array([3.2, 2.2, 1.2, 0.3])[ring]
    p1 = np.array([0.50, 0.45, 0.40, 0.35])[ring]
    p2 = np.full((HEIGHT, WIDTH), 0.25)
    patient = np.arange(n) // 2
    effect = rs.standard_normal(int(patient.max()) + 1)
    probs = np.empty((n, 3, HEIGHT, WIDTH), np.uint16)
    labels = np.empty((n, HEIGHT, WIDTH), np.uint8)
    for i in range(n):
        u = rs.random_sample((HEIGHT, WIDTH))
        label = np.where(u < p1, 1, np.where(u < p1 + p2, 2, 0)).astype(np.uint8)
        z = 0.9 * rs.standard_normal((3, HEIGHT, WIDTH))
        margin = gain + 0.6 * effect[patient[i]]
        for c in range(3):
            z[c] += np.where(label == c, margin, 0.0)
        e = np.exp(z - z.max(0))
        e /= e.sum(0)
        k1 = np.floor(e[1] * UNIT + 0.5).astype(np.int64)
        k2 = np.minimum(np.floor(e[2] * UNIT + 0.5).astype(np.int64), UNIT - k1)
        probs[i] = np.stack((UNIT - k1 - k2, k1, k2))
        labels[i] = label
    return probs, labels, patient


@cache
def cases(part):
    """The images as cases, the true rings as their atlas."""
    probs, labels, patient = images(part)
    atlas = ring_map()[None]
    return [
        AtlasCase(
            f"image_{i:03}",
            f"patient_{patient[i]:03}",
            SPACE,
            Volume(
                (probs[i][:, None] / UNIT).astype(np.float32),
                Grid((1, HEIGHT, WIDTH)),
                "probabilities",
                Stored("float32"),
            ),
            LabelMap(labels[i][None], np.eye(3, dtype=bool)),
            atlas=atlas,
        )
        for i in range(len(labels))
    ]


def run(estimator, some):
    """What an estimator comes to on cases, each with a state of its own."""
    state = estimator.empty()
    for case in some:
        state = estimator.merge(state, estimator.update(estimator.empty(), case))
    return estimator.finish(state)


@cache
def code_of_score():
    """Score in units of 1/2048 -> code; inf -> the infinite code."""
    p = np.arange(UNIT + 1, dtype=np.float32) / np.float32(UNIT)
    codes = score_codes(p[None], "probabilities", 0, exclusive=False)
    return {**{1 - k / UNIT: int(code) for k, code in enumerate(codes)}, float("inf"): 65536}


def codes(scores):
    """The codes of expected scores."""
    return np.vectorize(code_of_score().get)(scores)
