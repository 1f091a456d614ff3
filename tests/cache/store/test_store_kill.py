"""Killed at random instants, the store opens, has lost nothing and goes on where it was."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "cache" / "kill_store.py"


def kill(tmp_path, *options):
    report = tmp_path / "report.json"
    command = [sys.executable, str(SCRIPT), "--json", str(report), *options]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[2])}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(report.read_text())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the fake backbone is forked")
def test_twenty_kills_of_a_fake_backbone_lose_nothing(tmp_path):
    report = kill(tmp_path, "--kills", "20", "--texts", "3000")
    assert report["kills"] == 20
    assert report["committed_at_kill_quartiles"][3] > 0
