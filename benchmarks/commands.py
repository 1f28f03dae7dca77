"""Every command on the same scans, beside what it has to be compared with: decoding its inputs, and plain peers.

The bound to come close to is the decoding itself, so each table begins with it: the files of a command read by the
fastest decoder there is, and nothing done with them. Peers do a part of the same work the way one would write it down
with nibabel, numpy, scipy, scikit-learn, torchmetrics or netcal; a peer that is not installed is left out. A bound, in
times the decoding, stands beside the commands that have one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import generated
from evaluating import DECODE, NUMPY, TORCHMETRICS
from processes import Contender, python, race, segcal, table

RATIO = ("--numerator", "necrosis", "--denominator", "edema,necrosis,enhancing")

READ = """
import sys, nibabel, numpy
def read(path):
    return numpy.asarray(nibabel.load(path).dataobj)
def pairs():
    for prediction, label in zip(sys.argv[1::2], sys.argv[2::2]):
        yield read(prediction).astype(numpy.float32), read(label)
"""

TEMPERATURE = (
    READ
    + """
from scipy.optimize import minimize_scalar
cases = [(numpy.log(numpy.maximum(p, 1e-38))[::8], y[::8]) for p, y in pairs()]
def nll(t):
    total = 0.0
    for z, y in cases:
        z = z / t
        top = z.max(axis=-1)
        z -= top[..., None]
        total += (numpy.log(numpy.exp(z).sum(axis=-1)) - numpy.take_along_axis(z, y[..., None], -1)[..., 0]).sum()
    return total
minimize_scalar(nll, bounds=(0.05, 20.0), method="bounded")
"""
)

ISOTONIC = (
    READ
    + """
from sklearn.isotonic import IsotonicRegression
found = list(pairs())
for c in range(1, 4):
    p = numpy.concatenate([q[..., c].ravel() for q, _ in found])
    y = numpy.concatenate([(t == c).ravel() for _, t in found])
    IsotonicRegression(out_of_bounds="clip").fit(p, y)
"""
)

SOFTENED = """
import sys, nibabel, numpy
for path in sys.argv[2:]:
    image = nibabel.load(path)
    p = numpy.asarray(image.dataobj, dtype=numpy.float32) ** numpy.float32(0.5)
    p /= p.sum(axis=-1, keepdims=True)
    nibabel.save(nibabel.Nifti1Image(p, image.affine), sys.argv[1])
"""

COPIED = """
import sys, nibabel, numpy
for path in sys.argv[2:]:
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(numpy.asarray(image.dataobj, dtype=numpy.float32), image.affine), sys.argv[1])
"""

DISTANCES = (
    READ
    + """
from scipy.ndimage import distance_transform_edt
for p, y in pairs():
    hard = p.argmax(axis=-1)
    for c in range(1, 4):
        inside = hard == c
        distance = distance_transform_edt(~inside) - distance_transform_edt(inside)
        distance[y == c].max(initial=-1.0), distance[y != c].min()
"""
)

SUMS = (
    READ
    + """
for p, y in pairs():
    a, b = p[..., 2].astype(numpy.float64), p[..., 1:].sum(axis=-1, dtype=numpy.float64)
    a.sum(), b.sum(), (a * a).sum(), (a * b).sum(), (b * b).sum(), (y == 2).sum(), (y > 0).sum()
"""
)

NETCAL = (
    READ
    + """
from netcal.metrics import ECE
for p, y in pairs():
    for c in range(p.shape[-1]):
        ECE(bins=20).measure(p[..., c].ravel(), (y == c).ravel().astype(int))
"""
)


def prepared(folder: Path, cases: int, shape: tuple[int, int, int]) -> Path:
    """Scans of a shape (z, y, x), their class table, and an artifact of every kind."""
    work = folder / "x".join(map(str, (cases, *shape)))
    for number in range(cases):
        # In a process of its own: a child's peak memory is never below that of the parent that starts it.
        subprocess.run([sys.executable, generated.__file__, str(work), str(number), *map(str, shape)], check=True)
    (work / "classes.json").write_text(json.dumps(generated.CLASSES))
    for name, command in _fits(work).items():
        if not (work / f"{name}.npz").exists():
            subprocess.run(command, check=True)
    return work


def common(work: Path) -> tuple[str, ...]:
    return ("--values", "probabilities", "--classes", str(work / "classes.json"), "--overwrite", "-q")


def folders(work: Path) -> tuple[str, str]:
    return str(work / "predictions"), str(work / "labels")


def _fits(work: Path) -> dict[str, tuple[str, ...]]:
    """The fit of each kind. Few cases promise something at high levels only; the work is that of any other."""

    def fit(command: str, name: str, *more: str) -> tuple[str, ...]:
        return segcal(command, "fit", *folders(work), *more, "-o", str(work / f"{name}.npz"), *common(work))

    scores = ("--inner-score", "distance", "--outer-score", "distance")
    return {
        "temperature": fit("calibrate", "temperature"),
        "isotonic": fit("calibrate", "isotonic", "--method", "isotonic"),
        "sets": fit("conformal-sets", "sets", "--joint", "none", "--alpha", "0.5", *scores),
        "ratio": fit("ntr-interval", "ratio", *RATIO),
        "clusters": fit("cluster", "clusters", "--method", "grid", "--grid", "4x4x2", "--alpha", "0.5"),
    }


TINY = (16, 32, 32)
"""Shape of scans on which a command does little but start."""


def run(folder: Path, runs: int, cases: int = 2, shape: tuple[int, int, int] = generated.BRATS) -> str:
    """All tables. shape: (z, y, x) of a scan."""
    work, tiny = prepared(folder, cases, shape), prepared(folder, cases, TINY)
    size = " x ".join(map(str, reversed(shape)))
    scans = f"{cases} softmax case{'s' if cases > 1 else ''} of 4 x {size} float32 .nii.gz"
    parts = []
    for (title, contenders, bounds), (_, little, _) in zip(_tables(work), _tables(tiny), strict=True):
        both = [replace(one, idle=small.command) for one, small in zip(contenders, little, strict=True)]
        chosen = contenders if title == START_UP else both
        parts.append(table(f"{title}, {scans}", race(chosen, runs), contenders[0].name, bounds))
    return "\n".join(parts)


START_UP = "start-up"


def _tables(work: Path) -> Iterator[tuple[str, list[Contender], dict[str, str]]]:
    """Title, contenders (what they are compared with first), and bounds by contender."""
    both, new = folders(work), folders(work)[0]
    images = [str(path) for path in sorted((work / "predictions").iterdir())]
    pairs = [str(work / kind / Path(image).name) for image in images for kind in ("predictions", "labels")]
    options, fits, out = common(work), _fits(work), work / "out"
    out.mkdir(exist_ok=True)

    def apply(command: str, name: str, target: str) -> tuple[str, ...]:
        return segcal(command, "apply", str(work / f"{name}.npz"), new, "-o", str(out / target), *options)

    def evaluate(*more: str) -> tuple[str, ...]:
        return segcal("evaluate", *both, "-o", str(out / "table.csv"), *more, *options)

    decoding = Contender("decoding alone (isal)", python(DECODE, *pairs))
    decoding_new = Contender("decoding alone (isal)", python(DECODE, *images))
    artifacts = [word for name in fits for word in ("--artifact", str(work / f"{name}.npz"))]
    measuring = [
        decoding,
        Contender("evaluate, every measure", evaluate()),
        Contender("evaluate, -j 2", evaluate("-j", "2")),
        Contender("evaluate, with an artifact of each kind", evaluate(*artifacts, "--allow-overlap")),
        Contender("reliability", segcal("reliability", *both, "-o", str(out / "report"), *options)),
        Contender("nibabel + numpy: ECE", python(NUMPY, *pairs)),
    ]
    if find_spec("torchmetrics"):
        measuring.append(Contender("nibabel + torchmetrics: ECE, MCE", python(TORCHMETRICS, *pairs)))
    if find_spec("netcal"):
        measuring.append(Contender("nibabel + netcal: ECE", python(NETCAL, *pairs)))
    yield "evaluate and reliability", measuring, {"evaluate, every measure": "1.5"}

    fitting = [
        decoding,
        Contender("calibrate fit, temperature", fits["temperature"]),
        Contender("calibrate fit, isotonic", fits["isotonic"]),
        Contender("conformal-sets fit, distance", fits["sets"]),
        Contender("ntr-interval fit", fits["ratio"]),
        Contender("cluster fit, grid", fits["clusters"]),
        Contender("nibabel + scipy: temperature on an eighth", python(TEMPERATURE, *pairs)),
        Contender("nibabel + scipy EDT: distances of three targets", python(DISTANCES, *pairs)),
        Contender("nibabel + numpy: sums of a ratio", python(SUMS, *pairs)),
    ]
    if find_spec("sklearn"):
        fitting.append(Contender("nibabel + scikit-learn: isotonic", python(ISOTONIC, *pairs)))
    yield "fit", fitting, {"conformal-sets fit, distance": "1.3"}

    target = str(out / "peer.nii.gz")
    look = segcal("pairs", *both, "-o", str(out / "cases.csv"), *options)
    applying = [
        decoding_new,
        Contender("pairs, headers only", look),
        Contender("pairs --prove", (*look, "--prove")),
        Contender("convert", segcal("convert", new, "-o", str(out / "converted"), *options)),
        Contender("calibrate apply", apply("calibrate", "temperature", "calibrated")),
        Contender("conformal-sets apply", apply("conformal-sets", "sets", "sets")),
        Contender("ntr-interval apply", apply("ntr-interval", "ratio", "ratio.csv")),
        Contender("cluster apply", apply("cluster", "clusters", "clusters")),
        Contender("nibabel: read and write", python(COPIED, target, *images)),
        Contender("nibabel + numpy: soften and write", python(SOFTENED, target, *images)),
    ]
    yield "apply, convert and pairs", applying, {}

    yield (
        START_UP,
        [
            Contender("python -c pass", python("pass")),
            Contender("segcal --help", segcal("--help")),
            Contender("segcal evaluate --help", segcal("evaluate", "--help")),
            Contender("inspect, calibrate", segcal("inspect", str(work / "temperature.npz"))),
            Contender("inspect, conformal-sets", segcal("inspect", str(work / "sets.npz"))),
            Contender("inspect, ntr-interval", segcal("inspect", str(work / "ratio.npz"))),
            Contender("inspect, cluster", segcal("inspect", str(work / "clusters.npz"))),
        ],
        {"segcal --help": "0.3 s"},
    )
