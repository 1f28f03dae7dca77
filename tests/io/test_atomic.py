from __future__ import annotations

import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segcal_cli.core.errors import WriteError
from segcal_cli.io import atomic


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        # By its name alone, which is short enough for the address of a socket.
        previous = Path.cwd()
        os.chdir(path.parent)
        try:
            made.bind(path.name)
        finally:
            os.chdir(previous)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def interrupted_write(target, error):
    with atomic.writing(target) as file:
        file.write(b"half")
        raise error


def test_the_target_holds_what_was_written_and_no_temp_is_left(tmp_path):
    atomic.write_bytes(tmp_path / "a.nii.gz", b"data")
    assert names(tmp_path) == ["a.nii.gz"]
    assert (tmp_path / "a.nii.gz").read_bytes() == b"data"


def test_text_is_utf8_with_line_ends_as_given(tmp_path):
    atomic.write_text(tmp_path / "a.json", "Größe\n")
    assert (tmp_path / "a.json").read_bytes() == "Größe\n".encode()


def test_the_target_is_the_old_file_until_the_block_ends(tmp_path):
    target = tmp_path / "a.csv"
    target.write_bytes(b"old")
    with atomic.writing(target) as file:
        file.write(b"new")
        file.flush()
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(1)])
def test_any_exception_removes_the_temp_and_keeps_the_old_file(tmp_path, error):
    target = tmp_path / "a.csv"
    target.write_bytes(b"old")
    with pytest.raises(type(error)):
        interrupted_write(target, error)
    assert names(tmp_path) == ["a.csv"]
    assert target.read_bytes() == b"old"


def test_the_temp_is_a_dot_file_with_the_tag_and_the_whole_suffix(tmp_path):
    with atomic.writing(tmp_path / "case.1.2.nii.gz", tag="lock-3") as file:
        file.write(b"x")
        (temp,) = names(tmp_path)
    assert temp.startswith(".case.1.2.tmp-lock-3-")
    assert temp.endswith(".nii.gz")
    assert temp.count(".nii.gz") == 1


def test_two_writers_of_one_target_use_two_temps(tmp_path):
    target = tmp_path / "a.csv"
    with atomic.writing(target) as first, atomic.writing(target) as second:
        assert len(names(tmp_path)) == 2
        first.write(b"1")
        second.write(b"2")
    assert names(tmp_path) == ["a.csv"]


def test_a_name_that_leaves_no_room_is_cut_in_the_temp_only(tmp_path):
    target = tmp_path / ("ä" * 124 + ".nii.gz")
    atomic.write_bytes(target, b"x")
    assert names(tmp_path) == [target.name]


def test_the_umask_decides_on_the_mode(tmp_path):
    old = os.umask(0o027)
    try:
        atomic.write_bytes(tmp_path / "a", b"x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_symlink_at_the_target_is_replaced_not_followed(tmp_path):
    real = tmp_path / "real"
    real.write_bytes(b"keep")
    link = tmp_path / "link"
    link.symlink_to(real)
    atomic.write_bytes(link, b"new")
    assert not link.is_symlink()
    assert link.read_bytes() == b"new"
    assert real.read_bytes() == b"keep"


@pytest.mark.parametrize("make", [os.mkfifo, make_socket], ids=["pipe", "socket"])
@pytest.mark.parametrize("linked", [False, True])
def test_what_is_no_file_is_never_replaced(make, linked, tmp_path):
    special = tmp_path / "s"
    make(special)
    target = tmp_path / "link" if linked else special
    if linked:
        target.symlink_to(special)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(WriteError, match=r"it is a device, a pipe or a socket") as caught:
        atomic.write_text(target, "x")
    assert str(target) in str(caught.value)
    assert not special.is_file()
    assert sorted(tmp_path.iterdir()) == before


def test_a_missing_folder_is_a_write_error_that_names_the_target(tmp_path):
    target = tmp_path / "none" / "a.csv"
    with pytest.raises(WriteError) as caught:
        atomic.write_bytes(target, b"x")
    assert str(caught.value) == f"cannot write {target}: the folder {target.parent} does not exist"


def test_a_folder_at_the_target_is_a_write_error(tmp_path):
    target = tmp_path / "a"
    target.mkdir()
    with pytest.raises(WriteError) as caught:
        atomic.write_bytes(target, b"x")
    assert str(caught.value) == f"cannot write {target}: is a directory"
    assert names(tmp_path) == ["a"]


def test_a_folder_that_takes_no_files_is_a_write_error(tmp_path, monkeypatch):
    def denied(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(WriteError) as caught:
        atomic.write_bytes(tmp_path / "a", b"x")
    assert str(caught.value) == f"cannot write {tmp_path / 'a'}: permission denied"


def test_a_full_disk_is_a_write_error_and_leaves_nothing(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(WriteError) as caught:
            atomic.write_bytes(tmp_path / "a", bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert str(caught.value) == f"cannot write {tmp_path / 'a'}: file too large"
    assert names(tmp_path) == []


def test_a_failed_write_among_several_names_its_own_target(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    targets = [tmp_path / "a", tmp_path / "b", tmp_path / "c"]

    def write():
        with atomic.writing_together(targets) as (a, b, c):
            a.write(b"small")
            c.write(b"small")
            b.write(bytes(100_000))

    try:
        with pytest.raises(WriteError) as caught:
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.args[0] == targets[1]
    assert names(tmp_path) == []


def test_an_error_of_the_caller_stays_the_callers(tmp_path):
    with pytest.raises(FileNotFoundError):
        interrupted_write(tmp_path / "a", FileNotFoundError(2, "No such file", "input"))


def test_several_files_are_renamed_in_the_order_given_after_all_are_whole(tmp_path, monkeypatch):
    targets = [tmp_path / "side.json", tmp_path / "mask.nii.gz", tmp_path / "volume.nii.gz"]
    order = []
    replace = Path.replace

    def spy(self, target):
        assert [path.stat().st_size for path in tmp_path.iterdir()] == [3, 3, 3]
        order.append(target)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", spy)
    with atomic.writing_together(targets) as files:
        for file in reversed(files):
            file.write(b"abc")
        assert all(name.startswith(".") for name in names(tmp_path))
    assert order == targets
    assert names(tmp_path) == ["mask.nii.gz", "side.json", "volume.nii.gz"]


def test_if_one_of_several_cannot_be_opened_none_appears(tmp_path):
    def write():
        with atomic.writing_together([tmp_path / "a", tmp_path / "none" / "b"]):
            raise AssertionError("not reached")

    with pytest.raises(WriteError):
        write()
    assert names(tmp_path) == []


def test_a_process_killed_while_writing_leaves_the_old_file_and_a_temp_that_its_tag_removes(tmp_path):
    target = tmp_path / "a.csv"
    target.write_bytes(b"old")
    code = (
        "import sys, time; from pathlib import Path; from segcal_cli.io import atomic\n"
        "with atomic.writing(Path(sys.argv[1]), tag='run') as file:\n"
        "    file.write(b'half'); file.flush(); print('ready', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"ready\n"
        child.kill()
    assert target.read_bytes() == b"old"
    (temp,) = (path for path in tmp_path.iterdir() if path != target)
    assert atomic.remove_temps(tmp_path, "other") == ()
    assert atomic.remove_temps(tmp_path, "run", older_than_s=86400) == ()
    assert atomic.remove_temps(tmp_path, "run") == (temp,)
    assert names(tmp_path) == ["a.csv"]


def test_only_old_temps_are_removed_where_an_age_is_asked_for(tmp_path):
    old, new = tmp_path / ".a.tmp-segcal-01.csv", tmp_path / ".a.tmp-segcal-02.csv"
    for path in (old, new):
        path.write_bytes(b"")
    os.utime(old, (time.time() - 90_000,) * 2)
    assert atomic.remove_temps(tmp_path, "segcal", older_than_s=86_400) == (old,)
    assert names(tmp_path) == [new.name]


def test_files_that_belong_together_appear_when_all_are_there_the_named_one_last(tmp_path, monkeypatch):
    renamed = []
    real = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, target: (renamed.append(target.name), real(self, target))[1])
    (tmp_path / "b.svg").write_text("old")
    with atomic.filling(tmp_path, last="a.html") as folder:
        assert folder.parent == tmp_path
        for name in ("a.html", "c.svg", "b.svg"):
            (folder / name).write_text(name)
        assert [path.name for path in tmp_path.iterdir() if not atomic.is_temp(path)] == ["b.svg"]
        assert (tmp_path / "b.svg").read_text() == "old"
    assert names(tmp_path) == ["a.html", "b.svg", "c.svg"]
    assert renamed == ["b.svg", "c.svg", "a.html"]
    assert (tmp_path / "b.svg").read_text() == "b.svg"


def interrupted_filling(folder, error):
    with atomic.filling(folder, last="a.html") as inner:
        (inner / "b.svg").write_text("new")
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_filling_leaves_the_folder_as_it_was(tmp_path, error):
    (tmp_path / "b.svg").write_text("old")
    with pytest.raises(error):
        interrupted_filling(tmp_path, error)
    assert names(tmp_path) == ["b.svg"]
    assert (tmp_path / "b.svg").read_text() == "old"


def test_a_filling_of_yesterday_is_removed_and_one_of_today_may_be_somebodys(tmp_path):
    old, new = (tmp_path / f".filling.tmp-file-{name}" for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir()
    os.utime(old, (0, time.time() - 2 * atomic.ABANDONED_SECONDS))
    with atomic.filling(tmp_path, last="a"):
        pass
    atomic.write_text(tmp_path / "x", "")
    assert names(tmp_path) == [new.name, "x"]


def test_a_filling_takes_no_place_of_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "a")
    with (
        pytest.raises(WriteError, match="a: it is a device, a pipe or a socket"),
        atomic.filling(tmp_path, "a") as folder,
    ):
        (folder / "a").write_text("new")
    assert names(tmp_path) == ["a"]


def test_an_error_in_a_filling_names_the_file_that_was_to_come_of_it(tmp_path):
    def blocked():
        with atomic.filling(tmp_path, "b") as folder:
            (folder / "a").mkdir()
            atomic.write_text(folder / "a", "")

    with pytest.raises(WriteError) as raised:
        blocked()
    assert raised.value.args[0] == tmp_path / "a"
