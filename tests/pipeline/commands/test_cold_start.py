"""What a command that only reads what is kept must not wait for: a second and a half of torch."""

import os
import shutil
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


@pytest.fixture(scope="module")
def kept(fitted, tmp_path_factory):
    """The fitted heads without what `retrieve` left: its results, where other tests made them, are read with torch."""
    root = tmp_path_factory.mktemp("kept")
    copy = type(fitted)(shutil.copytree(fitted.artifacts, root / "artifacts"), root)
    for results in copy.artifacts.glob("reports/retrieval-*.json"):
        results.unlink()
    return copy


@pytest.mark.parametrize("words", [("--help",), ("score",), ("compare",), ("report",), ("runs", "list")])
def test_what_is_kept_is_shown_without_torch(kept, words):
    if words != ("--help",):
        assert kept(*words).returncode == 0
    modules = imported(kept, *words)
    assert "click" in modules
    assert "torch" not in modules


def test_a_search_loads_nothing_of_the_hub(kept):
    """MiniLM comes from a package: that the hub's cache lacks it is known without what loads from the hub."""
    words = ("search", "where is my parcel", "--method", "v5", "--seed", "1")
    assert kept(*words).returncode == 0
    modules = imported(kept, *words)
    assert "torch" in modules
    assert "huggingface_hub.file_download" not in modules
