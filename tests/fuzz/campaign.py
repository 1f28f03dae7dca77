"""Many mutations, on demand: what the test suite does with 2,000, with as many as are asked for.

    python -m tests.fuzz.campaign --mutations 100000 --jobs 2 --keep fuzz-findings

Mutations are shared out among the scenes evenly. Each finding is a folder: the damaged file, and ``report.txt`` with
the command, what was said, and the line that runs this one trial again (``--scene NAME --only NUMBER``). The exit code
is 1 if there is any finding.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from tests.fuzz.every import SCENES, scene_of
from tests.fuzz.trials import SECONDS, Finding, Stage

SEED = 1
"""Of the trials in the test suite, and where nothing else is asked for."""

CHUNK = 250
"""Trials of one scene between two lines of progress."""


PATIENCE = 5 * SECONDS
"""A trial that not even its alarm ends, since it waits for a thread or inside of C, ends its process after so long."""


def trials(scene: str, seed: int, numbers: Sequence[int], stuck: Path | None = None) -> list[Finding]:
    """The findings among some trials of a scene, in a folder of its own.

    stuck: a folder for reports of trials that nothing ends, which say where their threads stood; the process ends then.
    """
    warnings.simplefilter("error")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(scene_of(scene), Path(folder) / "scene")
        for number in numbers:
            with _watched(None if stuck is None else stuck / f"{scene}-{seed}-{number}.stuck"):
                finding = stage.trial(seed, number)
            if finding is not None:
                found.append(finding)
    return found


@contextlib.contextmanager
def _watched(report: Path | None) -> Iterator[None]:
    if report is None:
        yield
        return
    with report.open("w", encoding="utf-8") as file:
        faulthandler.dump_traceback_later(PATIENCE, exit=True, file=file)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
    report.unlink()


def keep(finding: Finding, folder: Path) -> Path:
    """Write a finding where a developer can look at it."""
    place = folder / f"{finding.scene}-{finding.seed}-{finding.number}"
    place.mkdir(parents=True, exist_ok=True)
    (place / Path(finding.file).name).write_bytes(finding.content)
    again = f"python -m tests.fuzz.campaign --scene {finding.scene} --seed {finding.seed} --only {finding.number}"
    (place / "report.txt").write_text(f"{finding}\n\nagain: {again}\n", encoding="utf-8")
    return place


def parts(mutations: int, scenes: Sequence[str]) -> Iterator[tuple[str, range]]:
    """The trials of each scene in chunks, scene by scene in turn."""
    each = -(-mutations // len(scenes))
    for start in range(0, each, CHUNK):
        for scene in scenes:
            yield scene, range(start, min(start + CHUNK, each))


def without(work: Sequence[tuple[str, range]], scene: str, number: int) -> Iterator[tuple[str, range]]:
    """The chunks, one of them without a trial."""
    for name, numbers in work:
        if name == scene and number in numbers:
            halves = range(numbers.start, number), range(number + 1, numbers.stop)
            yield from ((name, half) for half in halves if len(half))
        else:
            yield name, numbers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--scene", action="append", choices=[scene.name for scene in SCENES], help="repeatable")
    parser.add_argument("--only", type=int, help="this trial of each scene alone")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), help="folder for what is found")
    options = parser.parse_args()
    names = options.scene or [scene.name for scene in SCENES]
    work = [(name, range(options.only, options.only + 1)) for name in names] if options.only is not None else None
    work = work or list(parts(options.mutations, names))
    total, done, found, start = sum(len(numbers) for _, numbers in work), 0, 0, time.monotonic()
    options.keep.mkdir(parents=True, exist_ok=True)
    while work:
        with ProcessPoolExecutor(options.jobs) as pool:
            running = [pool.submit(trials, name, options.seed, numbers, options.keep) for name, numbers in work]
            for name, numbers in list(work):
                try:
                    findings = running.pop(0).result()
                except BrokenProcessPool:
                    break
                work.pop(0)
                for finding in findings:
                    found += 1
                    print(f"{finding}\n  kept in {keep(finding, options.keep)}", flush=True)
                done += len(numbers)
                print(f"{done} of {total}, {found} found, {time.monotonic() - start:.0f} s ({name})", file=sys.stderr)
            else:
                break
        reports = sorted(options.keep.glob("*.stuck"))
        # Those of trials that ended with their pool are empty.
        ended = [report for report in reports if report.stat().st_size]
        if not ended:
            sys.exit("a worker died, and no trial was stuck")
        for report in ended:
            found += 1
            scene, _, number = report.stem.rsplit("-", 2)
            print(f"{report.stem}: nothing ended it\n{report.read_text(encoding='utf-8')}", flush=True)
            work = list(without(work, scene, int(number)))
            report.replace(report.with_suffix(".ended"))
        for report in options.keep.glob("*.stuck"):
            report.unlink()
    print(f"{total} mutations, {found} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
