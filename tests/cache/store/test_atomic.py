"""A file or folder is whole or absent: after an exception, a full disk, a kill at any of its steps."""

import errno
import os
import shutil
import subprocess
import sys
import time

import pytest

from cache import CacheError
from cache.store import atomic_file, atomic_folder
from cache.store.atomic import _partial_name, remove_folder, remove_stale_partials, stale_partials
from tests.cache.store.killing import killed_at


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "file"
    with atomic_file(path) as partial:
        partial.write_text("new")
        assert not path.exists()
        assert partial.parent == tmp_path
    assert path.read_text() == "new"
    assert names(tmp_path) == ["file"]


def test_an_exception_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_file(path) as partial:
        partial.write_text("half")
        _ = 1 / 0
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_an_error_about_another_file_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "file"):
        (tmp_path / "no such source").read_bytes()
    assert names(tmp_path) == []


def test_a_folder_appears_when_the_block_ends(tmp_path):
    with atomic_folder(tmp_path / "run") as partial:
        (partial / "deep").mkdir()
        (partial / "deep" / "file").write_text("content")
        assert names(tmp_path) == [partial.name]
    assert (tmp_path / "run" / "deep" / "file").read_text() == "content"
    assert names(tmp_path) == ["run"]


def test_an_exception_leaves_no_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "run") as partial:
        (partial / "file").write_text("half")
        _ = 1 / 0
    assert names(tmp_path) == []


def test_a_missing_parent_is_one_clear_error(tmp_path):
    with pytest.raises(CacheError, match="No such file or directory") as error, atomic_file(tmp_path / "no" / "file"):
        pass
    assert str(tmp_path / "no" / "file") in str(error.value)
    assert "\n" not in str(error.value)


def write_file(path):
    with atomic_file(path) as partial:
        partial.write_text("new" * 1000)


def write_folder(path):
    with atomic_folder(path) as partial:
        (partial / "file").write_text("new" * 1000)


@pytest.mark.parametrize("write", [write_file, write_folder])
def test_killed_at_every_step_it_is_absent_or_whole(tmp_path, write):
    path = tmp_path / "it"
    seen = set()
    for step in range(1, 50):
        died = killed_at(step, write, path)
        seen.add(path.exists())
        if path.is_dir():
            assert (path / "file").read_text() == "new" * 1000
            remove_folder(path)
        elif path.exists():
            assert path.read_text() == "new" * 1000
            path.unlink()
        remove_stale_partials(tmp_path)
        assert names(tmp_path) == []
        if not died:
            break
    assert not died
    assert seen == {False, True}


def test_partials_of_living_processes_stay(tmp_path):
    living = _partial_name(tmp_path / "living")
    living.write_text("being written")
    os.utime(living, (time.time() - 4000, time.time() - 4000))  # as where it was stopped for an hour
    child = os.fork()
    if child == 0:
        _partial_name(tmp_path / "dead").write_text("left behind")
        os._exit(0)
    os.waitpid(child, 0)
    assert len(names(tmp_path)) == 2
    assert remove_stale_partials(tmp_path) == 1
    assert names(tmp_path) == [living.name]


def test_partials_of_other_machines_go_after_an_hour_without_a_write(tmp_path):
    for name, age in (("busy", 60), ("left", 4000)):
        path = tmp_path / f".{name}.00000000-1-0123456789ab.partial"
        path.write_text("")
        os.utime(path, (time.time() - age, time.time() - age))
    (tmp_path / "someone-elses.partial").write_text("")
    assert [path.name[:5] for path in stale_partials(tmp_path)] == [".left"]


def test_a_folder_is_removed_whole(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "file").write_text("")
    remove_folder(tmp_path / "store")
    assert names(tmp_path) == []
    with pytest.raises(CacheError, match="cannot remove"):
        remove_folder(tmp_path / "store")


def test_modes_are_those_of_the_umask_whatever_a_library_makes_of_a_file(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_file(tmp_path / "file") as partial:
            partial.unlink()
            os.close(os.open(partial, os.O_CREAT | os.O_WRONLY, 0o600))
        with atomic_folder(tmp_path / "run") as partial:
            (partial / "inner").mkdir(0o700)
            os.close(os.open(partial / "inner" / "head", os.O_CREAT | os.O_WRONLY, 0o600))
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"file": 0o640, "run": 0o750, "inner": 0o750, "head": 0o640}


FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from cache import CacheError
from cache.store import atomic_file, atomic_folder
from safetensors.numpy import save_file
path = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
for write in (atomic_file, atomic_folder):
    try:
        with write(path) as partial:
            save_file({"a": np.zeros(1 << 20)}, partial / "head" if partial.is_dir() else partial)
    except CacheError as error:
        print(error.problem, "|", error.remedy)
"""


def test_a_library_that_meets_a_full_disk_is_explained_with_the_file_that_is_written(tmp_path):
    command = [sys.executable, "-c", FULL, str(tmp_path / "it")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stdout
    assert all(line.startswith(f"cannot write {tmp_path / 'it'}: File too large | free some space") for line in lines)
    assert names(tmp_path) == []


def test_a_folder_that_vanishes_while_a_library_writes_is_explained_and_a_missing_input_is_not(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    with pytest.raises(CacheError, match=r"cannot write .*gone/it: No such file"), atomic_file(folder / "it"):
        shutil.rmtree(folder)
        raise RuntimeError("Error while serializing: I/O error: No such file or directory (os error 2)")
    with pytest.raises(RuntimeError, match="input"), atomic_file(tmp_path / "it"):
        raise RuntimeError("input: No such file or directory (os error 2)")


def test_who_writes_removes_what_the_dead_left(tmp_path):
    child = os.fork()
    if child == 0:
        _partial_name(tmp_path / "dead").write_text("left behind")
        os._exit(0)
    os.waitpid(child, 0)
    with atomic_file(tmp_path / "new") as partial:
        partial.write_text("new")
    assert names(tmp_path) == ["new"]


def test_what_a_process_left_that_ended_and_was_not_waited_for_is_removed(tmp_path):
    code = "import os, pathlib, sys\nfrom cache.store import atomic_file\n"
    code += "with atomic_file(pathlib.Path(sys.argv[1])): os._exit(9)"
    ended = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a")])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # it stays in the table of processes
    assert len(list(tmp_path.iterdir())) == 1
    assert remove_stale_partials(tmp_path) == 1
    assert ended.wait() == 9


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_folder_that_is_there_is_named_and_kept(when, tmp_path):
    path = tmp_path / "run"
    (path if when == "before" else tmp_path / "other").mkdir()
    if when == "before":
        (path / "mine").touch()
    with pytest.raises(CacheError, match="run is there already"), atomic_folder(path) as partial:
        assert when == "meanwhile", "it is refused before anything is computed"
        (partial / "theirs").touch()
        path.mkdir()
        (path / "mine").touch()
    assert [entry.name for entry in path.iterdir()] == ["mine"]
    assert not list(tmp_path.glob(".*partial"))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("void write_index(): write error in .it.partial: 12206 != 110592 (No space left on device)"),
        OSError(errno.ENOSPC, "No space left on device", "/elsewhere/tokenizer.json", None, "COPY"),
    ],
)
def test_a_full_disk_is_explained_whatever_a_library_says_of_it(error, tmp_path):
    with (
        pytest.raises(CacheError, match=r"cannot write .*/it: No space left"),
        atomic_folder(tmp_path / "it") as partial,
    ):
        if isinstance(error, OSError):
            error.filename2 = str(partial / "tokenizer.json")
        raise error
    assert names(tmp_path) == []
