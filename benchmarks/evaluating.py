"""``evaluate`` on BraTS-size cases next to the decoding alone, torchmetrics, and numpy written plainly."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import generated
from processes import Contender, python, race, segcal, table

DECODE = """
import sys
from isal import igzip
for name in sys.argv[1:]:
    with igzip.open(name) as file:
        while file.read(1 << 20):
            pass
"""

READ = """
import sys, numpy
from isal import igzip
for name in sys.argv[1:]:
    with open(name, "rb") as file:
        numpy.frombuffer(igzip.decompress(file.read()), numpy.uint8)
"""

DECODING = "decoding alone (isal)"
EVALUATE = "segcal evaluate, every measure"
EVALUATE_IN_TWO = "segcal evaluate -j 2, every measure"

TINY = (16, 32, 32)
"""(z, y, x) of scans on which a command does little but start."""

TORCHMETRICS = """
import sys, nibabel, numpy, torch
from torchmetrics.functional.classification import binary_calibration_error
torch.set_num_threads(2)
for prediction, label in zip(sys.argv[1::2], sys.argv[2::2]):
    p = torch.from_numpy(numpy.asarray(nibabel.load(prediction).dataobj, dtype=numpy.float32))
    y = torch.from_numpy(numpy.asarray(nibabel.load(label).dataobj))
    for c in range(p.shape[-1]):
        for norm in ("l1", "max"):
            binary_calibration_error(p[..., c].reshape(-1), (y == c).reshape(-1).int(), n_bins=20, norm=norm)
"""

NUMPY = """
import sys, nibabel, numpy
for prediction, label in zip(sys.argv[1::2], sys.argv[2::2]):
    p = numpy.asarray(nibabel.load(prediction).dataobj, dtype=numpy.float32)
    y = numpy.asarray(nibabel.load(label).dataobj)
    for c in range(p.shape[-1]):
        q, t = p[..., c].ravel().astype(numpy.float64), (y == c).ravel()
        k = numpy.clip(numpy.ceil(q * 20).astype(numpy.int64) - 1, 0, 19)
        n, e, o = numpy.bincount(k, minlength=20), numpy.bincount(k, q, 20), numpy.bincount(k, t, 20)
        numpy.abs(e - o).sum() / n.sum()
"""


PEERS = {"nibabel + numpy: ECE": NUMPY, "nibabel + torchmetrics: ECE, MCE": TORCHMETRICS}


def run(folder: Path, cases: int, runs: int, *, peers: bool = True) -> str:
    """The table for so many cases. peers: nibabel with torchmetrics, and with numpy, which take ten times as long."""
    whole, tiny = (_contenders(folder, cases, shape) for shape in (generated.BRATS, TINY))
    if not peers:
        whole, tiny = whole[: -len(PEERS)], tiny[: -len(PEERS)]
    contenders = [replace(one, idle=little.command) for one, little in zip(whole, tiny, strict=True)]
    title = f"evaluate, {cases} softmax case{'s' if cases > 1 else ''} of 4 x 240 x 240 x 155 float32 .nii.gz"
    bounds = dict.fromkeys((EVALUATE, EVALUATE_IN_TWO), "1.5")
    return table(title, race(contenders, runs), DECODING, bounds)


def _contenders(folder: Path, cases: int, shape: tuple[int, int, int]) -> list[Contender]:
    """What runs on generated scans of a shape, (z, y, x)."""
    work = folder / ("brats" if shape == generated.BRATS else "tiny") / f"{cases}"
    for number in range(cases):
        # In a process of its own: a child's peak memory is never below that of the parent that starts it.
        subprocess.run([sys.executable, generated.__file__, str(work), str(number), *map(str, shape)], check=True)
    classes = work / "classes.json"
    classes.write_text(json.dumps(generated.CLASSES))
    names = [f"case_{number:03d}.nii.gz" for number in range(cases)]
    pairs = [str(work / kind / name) for name in names for kind in ("predictions", "labels")]
    common = ("--values", "probabilities", "--classes", str(classes), "--overwrite", "-q")
    evaluate = ("evaluate", str(work / "predictions"), str(work / "labels"), "-o", str(work / "metrics.csv"), *common)
    in_two = [Contender(EVALUATE_IN_TWO, segcal(*evaluate, "-j", "2"))] if cases > 1 else []
    return [
        Contender(DECODING, python(DECODE, *pairs)),
        Contender("isal, into arrays", python(READ, *pairs)),
        Contender(EVALUATE, segcal(*evaluate)),
        *in_two,
        *(Contender(name, python(script, *pairs)) for name, script in PEERS.items()),
    ]
