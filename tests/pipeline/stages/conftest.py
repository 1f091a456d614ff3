"""The small dataset embedded once, and a copy of it for each test to fit on."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.conftest import Pipeline


@pytest.fixture(scope="session")
def embedded_once(tmp_path_factory, small_csv) -> Path:
    root = tmp_path_factory.mktemp("embedded")
    Pipeline(root / "artifacts", root).json("embed", small_csv, "--backbone", "minilm")
    return root / "artifacts"


@pytest.fixture
def embedded(embedded_once, tmp_path) -> Pipeline:
    return Pipeline(shutil.copytree(embedded_once, tmp_path / "artifacts"), tmp_path)


def start(pipeline: Pipeline, *command: object, **environment: str) -> subprocess.Popen:
    """Python with some arguments, beside the test."""
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=pipeline.cwd,
        env={
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "PIPELINE_ARTIFACTS": str(pipeline.artifacts),
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
