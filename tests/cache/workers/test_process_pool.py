"""A crew begins at once, is heard to its last word, and ends with whoever started it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cache.workers.process_pool import Finished, ProcessPool
from tests.cache.workers import faults


class TestTheEnd:
    """Of processes that are interrupted together with their caller, or go without a word."""

    CALLER = (
        "import sys\n"
        "from pathlib import Path\n"
        "from cache.workers.process_pool import ProcessPool\n"
        "from tests.cache.workers import faults\n"
        "try:\n"
        "    with ProcessPool(faults.tidies_up, ['cpu'] * 2, [(Path(sys.argv[1]),)] * 2) as pool:\n"
        "        print('started', flush=True)\n"
        "        while True:\n"
        "            for _, said in pool.receive(0.1): print(said, flush=True)\n"
        "except KeyboardInterrupt: print('interrupted')\n"
    )

    @pytest.mark.parametrize("words", [("started",), ("started", "ready", "ready")])
    def test_an_interrupt_from_the_terminal_reaches_each_once(self, tmp_path, words):
        command = [sys.executable, "-c", self.CALLER, str(tmp_path)]
        root = Path(__file__).parents[3]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, cwd=root, start_new_session=True, **pipes) as caller:
            assert [caller.stdout.readline().strip() for _ in words] == list(words)
            if words == ("started",):
                time.sleep(0.1)  # most likely they are importing; on a busy machine some are ready
            os.killpg(caller.pid, signal.SIGINT)
            said, told = caller.communicate(timeout=60)
        assert (caller.returncode, said.replace("ready\n", ""), told) == (0, "interrupted\n", "")
        if "ready" in words:
            assert len(list(tmp_path.iterdir())) == 2

    @pytest.mark.parametrize(
        ("how", "reason", "remedy"),
        [
            ("0", "ended with exit code 0", "run again to go on"),
            ("3", "ended with exit code 3", "its memory may have run out"),
            ("real time", f"was killed by signal {signal.SIGRTMIN + 1} (Real-time signal 1)", "its memory may have"),
            ("stays", "closed its pipe and did not end", "run again to go on"),
        ],
    )
    def test_without_a_word(self, how, reason, remedy):
        with ProcessPool(faults.goes_quietly, ["cpu"], [(how,)]) as pool:
            while not (heard := pool.receive(1)):
                pass
        ((_, lost),) = heard
        assert lost.reason == f"the process on cpu {reason}"
        assert lost.remedy.startswith(remedy)
        assert multiprocessing.active_children() == []


class TestTheBeginning:
    def last_words(self, devices, given):
        words = {}
        with ProcessPool(faults.says_how_many_bytes, devices, given) as pool:
            while len(words) < len(devices):
                words |= dict(pool.receive(1))
        return words

    def test_all_are_started_before_one_that_is_slow_to_start_has_read_what_it_begins_with(self, tmp_path):
        devices = [faults.Waits(tmp_path / "there"), faults.Touches(tmp_path / "there")]
        assert self.last_words(devices, [(b"0" * (4 << 20),), (b"1",)]) == {0: Finished(4 << 20), 1: Finished(1)}

    def test_what_cannot_be_read_is_told_with_its_trace(self):
        said = self.last_words(["cpu", "cpu"], [(b"123",), (faults.Unreadable(),)])
        assert said[0] == Finished(3)
        assert "libcudart.so: cannot open" in said[1].problem

    def test_every_device_needs_its_own(self):
        with pytest.raises(ValueError, match="shorter"):
            ProcessPool(faults.says_how_many_bytes, ["cpu", "cpu"], [(b"",)])
        assert multiprocessing.active_children() == []
