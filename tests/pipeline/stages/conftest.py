"""The small dataset embedded once, and a copy of it for each test to fit on."""

import shutil
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
