"""What a command that only reads what is kept must not wait for: a second and a half of torch."""

import os
import subprocess
import sys

import pytest


def imported(pipeline, *words):
    """Names of the modules that a process of its own imports for a command."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pipeline.cli", *words],
        cwd=pipeline.cwd,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PIPELINE_ARTIFACTS": str(pipeline.artifacts)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize("words", [("--help",), ("score",), ("compare",), ("report",), ("runs", "list")])
def test_what_is_kept_is_shown_without_torch(fitted, words):
    pipeline = fitted
    if words != ("--help",):
        assert pipeline(*words).returncode == 0
    modules = imported(pipeline, *words)
    assert "click" in modules
    assert "torch" not in modules
