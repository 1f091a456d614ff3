"""Processes beside this one: their answers come in turns, and whatever ends them is heard where an answer is due."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cache.errors import DeviceError
from cache.workers.helper_processes import HelperProcesses
from tests.cache.workers import faults


def doubling(limit):
    def work(number):
        if number == limit:
            raise OSError(28, "no room for that number")
        if number == -1:
            os.kill(os.getpid(), signal.SIGKILL)
        return 2 * number

    return work


def processes(count, limit=None):
    return HelperProcesses(f"{__name__}.doubling", count, limit)


@pytest.mark.parametrize("count", [1, 3])
def test_answers_come_in_the_items_order(count):
    with processes(count) as some:
        assert some.call(21) == 42
        assert list(some.map(range(50), lambda item: item + 1)) == [(i, 2 * i + 2) for i in range(50)]


def test_what_the_work_raises_is_raised_where_its_answer_is_due_and_an_operating_system_s_error_too():
    with processes(2, limit=30) as some:
        got = []
        with pytest.raises(OSError, match="no room for that number"):
            got.extend(answer for _, answer in some.map(range(100), lambda item: item))
    assert got == [2 * i for i in range(30)]


def test_work_that_cannot_begin_says_why():
    with HelperProcesses(f"{__name__}.doubling", 1) as some, pytest.raises(TypeError, match="limit"):
        some.call(1)


def test_an_order_that_cannot_be_read_says_why():
    with processes(1) as some, pytest.raises(OSError, match="cannot open shared object"):
        some.call(faults.Unreadable())


def test_a_killed_process_is_an_error_that_says_so():
    with processes(2) as some:
        got = []
        with pytest.raises(DeviceError, match="a doubling process ended"):
            got.extend(answer for _, answer in some.map([1, 2, 3, -1, 5, 6, 7, 8], lambda item: item))
    assert got in ([2], [2, 4, 6])  # its last answer may have been on its way


def test_leaving_the_block_ends_them_whatever_they_are_at():
    with processes(2) as some:
        waiting = some.map(iter(range(10**9)), lambda item: item)
        next(iter(waiting))
        started = [one._process for one in some._all]
    assert all(process.poll() is not None for process in started)


def test_they_end_when_the_parent_was_killed():
    script = (
        f"import sys, time; sys.path.insert(0, {str(Path(__file__).parents[3])!r})\n"
        "from cache.workers.helper_processes import HelperProcesses\n"
        f"some = HelperProcesses('{__name__}.doubling', 1, None)\n"
        "some.call(1)\n"
        "print(some._all[0]._process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        parent.kill()
    for _ in range(600):
        if not _runs(child):
            return
        time.sleep(0.1)
    pytest.fail("the process outlives its parent")


def _runs(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_file_of_the_users_that_is_called_like_this_package_is_not_in_the_way(tmp_path, monkeypatch):
    (tmp_path / "cache.py").write_text("raise SystemExit('the wrong cache')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with processes(1) as some:
        assert some.call(21) == 42
