"""How time and memory grow with the number of cases, and shrink with the number of jobs.

Memory is to be bounded by a few volumes whatever the number of cases, and time to be a line in it. The cases are of an
eighth of a BraTS scan; all are one drawn case, shifted around its edge by another number of voxels, so that no two are
alike and none has to be drawn anew.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import generated
import numpy as np
from processes import Contender, race, segcal, table

from segcal_cli.io import nifti

SHAPE = (78, 120, 120)
"""(z, y, x): half a BraTS scan along each axis."""


def run(folder: Path, runs: int, numbers: tuple[int, ...] = (2, 8, 32)) -> str:
    """``evaluate`` and ``calibrate fit`` on growing numbers of cases, and on the largest with growing jobs."""
    work = folder / "scaling"
    # In a process of its own: a child's peak memory is never below that of the parent that starts it.
    subprocess.run([sys.executable, __file__, str(work), *map(str, numbers)], check=True)
    commands = {"evaluate": ("table.csv",), "calibrate fit": ("cal.npz",)}
    growing = [
        Contender(f"{command}, {count} cases", _command(work, command, target, count, 1))
        for command, (target,) in commands.items()
        for count in numbers
    ]
    cores = len(os.sched_getaffinity(0))
    jobs = [count for count in (1, 2, 4, 8) if count <= cores] or [1]
    parallel = [
        Contender(f"{command}, {numbers[-1]} cases, -j {count}", _command(work, command, target, numbers[-1], count))
        for command, (target,) in commands.items()
        for count in jobs
    ]
    size = "4 x " + " x ".join(map(str, reversed(SHAPE)))
    by_number = table(f"scaling in the number of cases of {size}", race(growing, runs), growing[0].name)
    return by_number + "\n" + table(f"scaling in jobs, {cores} cores", race(parallel, runs), parallel[0].name)


def fill(work: Path, numbers: list[int]) -> None:
    """Folders of so many cases, the smaller ones as links into the largest."""
    largest = work / f"{max(numbers)}"
    probabilities, codes = generated.softmax_case(0, SHAPE)
    for number in range(max(numbers)):
        for kind, array in (("predictions", probabilities), ("labels", codes)):
            path = largest / kind / f"case_{number:03d}.nii.gz"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                nifti.write(path, np.roll(array, number, axis=-1), np.eye(4))
    for count in numbers:
        for path in sorted(largest.glob("*/*.nii.gz")):
            link = work / f"{count}" / path.parent.name / path.name
            if int(path.name[5:8]) < count and not link.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path)
    (work / "classes.json").write_text(json.dumps(generated.CLASSES))


def _command(work: Path, command: str, target: str, count: int, jobs: int) -> tuple[str, ...]:
    place = work / f"{count}"
    words = (*command.split(), str(place / "predictions"), str(place / "labels"), "-o", str(place / target))
    common = ("--values", "probabilities", "--classes", str(work / "classes.json"), "--overwrite", "-q")
    return segcal(*words, *common, "-j", str(jobs))


if __name__ == "__main__":
    fill(Path(sys.argv[1]), [int(word) for word in sys.argv[2:]])
