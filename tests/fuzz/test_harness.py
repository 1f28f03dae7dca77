"""The harness itself: what it draws can be drawn again, and what is wrong does not pass."""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from random import Random

import click
import numpy as np
import pytest

from tests.fuzz import trials
from tests.fuzz.campaign import keep, parts, without
from tests.fuzz.every import SCENES, scene_of
from tests.fuzz.mutations import damaged_gzip, damaged_png, damaged_zip
from tests.fuzz.trials import Stage, limited


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    return Stage(scene_of("npy"), tmp_path_factory.mktemp("stage") / "scene")


def test_the_same_number_damages_the_same_bytes(stage, monkeypatch):
    seen = []
    monkeypatch.setattr(Stage, "_run", lambda self, command: seen.append((command, self.state())) or (0, "(exit 0)"))
    monkeypatch.setattr(
        Stage, "state", lambda self: [(self.root / v.file).read_bytes() for v in self.scene.victims], raising=False
    )
    for number in (0, 1, 0, 1):
        assert stage.trial(7, number) is None
    assert seen[:2] == seen[2:]
    assert seen[0] != seen[1]


@pytest.mark.parametrize(
    ("code", "said", "what"),
    [
        (1, "segcal: bug (exit 1)", "exit code 1"),
        (130, "segcal: interrupted (exit 130)", "exit code 130"),
        (4, "Traceback (most recent call last):\nsegcal: x (exit 4)", "a traceback"),
        (4, "segcal: \x1b[31mx (exit 4)", "control characters ['\\x1b']"),
        (4, "segcal: x (exit 5)", "the closing line does not name exit code 4"),
    ],
)
def test_what_is_wrong_is_found_and_kept(stage, monkeypatch, tmp_path, code, said, what):
    monkeypatch.setattr(Stage, "_run", lambda self, command: (code, said))
    finding = stage.trial(7, 3)
    assert finding is not None
    assert finding.what == what
    place = keep(finding, tmp_path)
    assert finding.content in [path.read_bytes() for path in place.iterdir()]
    assert "--scene npy --seed 7 --only 3" in (place / "report.txt").read_text()


def test_an_unforeseen_exception_is_found(stage, monkeypatch):
    @click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(trials, "COMMAND", broken)
    finding = stage.trial(7, 3)
    assert finding is not None
    assert finding.what == "exit code 1"
    assert "ZeroDivisionError" in finding.said


def test_a_file_that_is_left_half_written_is_found(stage, monkeypatch):
    def run(self, command):
        (self.root / "out").mkdir(exist_ok=True)
        (self.root / "out" / ".case.tmp-x-1.nii.gz").touch()
        return 0, "segcal: 1 case (exit 0)"

    monkeypatch.setattr(Stage, "_run", run)
    assert stage.trial(7, 3).what == "left behind: ['.case.tmp-x-1.nii.gz']"


def test_what_does_not_end_is_found(stage, monkeypatch):
    monkeypatch.setattr(trials, "SECONDS", 0.05)
    monkeypatch.setattr(Stage, "_run", lambda self, command: next(c for c in itertools.count() if c < 0))
    assert stage.trial(7, 3).what == "no end after 0.05 s"


def test_an_alarm_that_something_swallows_rings_again(monkeypatch):
    monkeypatch.setattr(trials, "SECONDS", 0.1)

    def swallowing() -> None:
        with limited():
            with contextlib.suppress(trials.Hang):
                time.sleep(5)
            time.sleep(5)

    with pytest.raises(trials.Hang):
        swallowing()


def test_what_not_even_an_alarm_ends_ends_its_process_and_says_where_it_stood(tmp_path):
    """As a wait inside of C does; here alarms are held back."""
    program = (
        "import pathlib, signal, sys, time; from tests.fuzz import campaign; campaign.PATIENCE = 0.2\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})\n"
        "with campaign._watched(pathlib.Path(sys.argv[1])): time.sleep(30)"
    )
    ran = subprocess.run([sys.executable, "-c", program, tmp_path / "x-1-7.stuck"], timeout=25, check=False)
    assert ran.returncode == 1
    assert "most recent call first" in (tmp_path / "x-1-7.stuck").read_text()


def test_a_trial_is_taken_out_of_its_chunk_alone():
    work = [("npy", range(5)), ("png", range(2, 6)), ("png", range(6, 7))]
    assert list(without(work, "png", 2)) == [work[0], ("png", range(3, 6)), work[2]]
    assert list(without(work, "png", 6)) == work[:2]
    assert list(without(work, "npy", 3)) == [("npy", range(3)), ("npy", range(4, 5)), *work[1:]]


def test_a_thread_that_is_waited_for_is_told_with_where_it_stands(stage, monkeypatch):
    end = threading.Event()

    def run(self, command):
        def stuck_decoder():
            end.wait(20)

        with ThreadPoolExecutor(1) as decoder:
            decoder.submit(stuck_decoder).result()

    monkeypatch.setattr(trials, "SECONDS", 0.2)
    monkeypatch.setattr(Stage, "_run", run)
    finding = stage.trial(7, 3)
    end.set()
    assert finding.what == "no end after 0.2 s"
    assert "in stuck_decoder" in finding.said


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="address space is limited by the kernel of Linux")
def test_absurd_memory_is_refused_by_the_limit():
    with limited(), pytest.raises(MemoryError):
        np.zeros(4 * trials.MEMORY_BYTES, np.uint8)
    assert np.zeros(2**20, np.uint8).sum() == 0


def test_every_mutation_is_shared_out_once():
    names = [scene.name for scene in SCENES]
    numbers = {name: [] for name in names}
    for name, part in parts(10_000, names):
        numbers[name] += part
    assert all(sorted(one) == list(range(-(-10_000 // len(names)))) for one in numbers.values())


def test_containers_are_put_together_with_right_checksums():
    """Of many damaged zips and gzips a good part opens again, so what is inside is reached."""
    file = io.BytesIO()
    np.savez(file, probabilities=np.zeros((2, 3)))
    packed = gzip.compress(bytes(500))
    rng = Random(0)
    opened = inflated = 0
    for _ in range(100):
        try:
            with zipfile.ZipFile(io.BytesIO(damaged_zip(rng, file.getvalue()))) as archive:
                opened += archive.testzip() is None
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError):
            pass
        with contextlib.suppress(OSError, EOFError, ValueError, gzip.zlib.error):
            inflated += gzip.decompress(damaged_gzip(rng, packed)) is not None
    assert opened > 40
    assert inflated > 40


def test_a_damaged_png_has_right_checksums_in_every_chunk():
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(file, "PNG")
    for seed in range(30):
        content = damaged_png(Random(seed), file.getvalue())
        at = 8
        while at < len(content):
            length = int.from_bytes(content[at : at + 4], "big")
            body = content[at + 4 : at + 8 + length]
            assert gzip.zlib.crc32(body) == int.from_bytes(content[at + 8 + length : at + 12 + length], "big")
            at += 12 + length
