"""A call that is served by a forked process says and does what one of its own does."""

import subprocess
import sys

import pytest

from tests.conftest import ENVIRONMENT
from tests.pipeline.conftest import warm
from tests.pipeline.warm_process import ROOT


@pytest.mark.parametrize("arguments", [["data", "list"], ["data", "show", "nowhere.csv"], ["score", "--nothing"]])
def test_status_and_output_are_those_of_a_process_of_its_own(tmp_path, arguments):
    found = warm()(arguments, tmp_path, ENVIRONMENT)
    own = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *arguments],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (found.returncode, found.stdout, found.stderr) == (own.returncode, own.stdout, own.stderr)


def test_what_a_library_sets_in_the_tests_own_process_costs_no_fresh_interpreter(pipeline, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "as sentence-transformers sets it")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("a fresh interpreter was started"))
    assert pipeline("data", "list").returncode == 0


def test_the_server_ends_though_a_connection_to_it_is_still_open():
    """A test outside a worker's end, or a process that a test left behind, may hold one."""
    script = """
import os
from tests.pipeline.warm_process import WarmProcess, served
with served(dict(os.environ)):
    open_still = WarmProcess(dict(os.environ))
print("ended")
"""
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT), "TMPDIR": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout == "ended\n"
