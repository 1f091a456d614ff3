"""A few harmed files and a few kills in each run of the slow tests; `scripts/` tries hundreds of both."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def script(name, fitted, *options):
    command = [sys.executable, f"scripts/{name}.py", "--artifacts", str(fitted.artifacts), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert '"faults": 0' in done.stdout


@pytest.mark.slow
def test_a_harmed_file_is_named_and_changes_no_result(fitted):
    script("fuzz_artifacts", fitted, "--trials", "4", "--kinds", "scores,predictions")


@pytest.mark.slow
def test_a_killed_command_is_finished_by_calling_it_again(fitted):
    script("kill_commands", fitted, "--kills", "1", "--commands", "export")
