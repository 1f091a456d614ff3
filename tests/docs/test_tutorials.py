"""Tutorials: every notebook is really executed in a kernel of its own, and shows what it printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import nbformat
import numpy as np
import pytest

import data
from scripts.run_tutorials import FOLDER, executed, printed

HIT = re.compile(r"( *\d+ dims: )?\d\.\d\d  ")
SHARE = 10.0
"""Points by which an accuracy may differ: other processors round features in another way."""


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_are_small_and_hold_their_outputs_alone(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(cell.metadata for cell in notebook.cells)
    assert not re.search(r"/tmp|/home|/root|0x[0-9a-f]{6}|20\d\d-\d\d-\d\d", path.read_text(encoding="utf-8"))
    assert path.stat().st_size < 16_000
    assert f"tutorials/{path.name}" in (FOLDER.parents[1] / "mkdocs.yml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "has"),
    [
        ("your-own-csv", "topic 'late' under 'billing' (row 2), 'delivery' (row 1)"),
        pytest.param("two-stage-search", "2116 candidates: recall@10 100.0%", marks=pytest.mark.slow),
        ("clinc-in-five-minutes", "(1, 64)"),
    ],
)
def test_a_notebook_prints_what_it_shows(name, has, tmp_path):
    if name.startswith("clinc"):
        _clinc_or_skip()
    path = FOLDER / f"{name}.ipynb"
    shown, found = printed(nbformat.read(path, as_version=4)), printed(executed(path, tmp_path))
    assert has in shown
    assert {left.name for left in tmp_path.iterdir()} <= {"artifacts"}  # where a downloaded dataset is kept
    assert _without_numbers(found) == _without_numbers(shown)
    for line, line_found in zip(shown.splitlines(), found.splitlines(), strict=True):
        np.testing.assert_allclose(_shares(line_found), _shares(line), atol=SHARE)


def _without_numbers(text: str) -> list[str]:
    """Lines with # for each number; of a hit only that it is one, since rounding decides between near equals."""
    return ["hit" if HIT.match(line) else re.sub(r"\d+\.?\d*", "#", line) for line in text.splitlines()]


def _shares(line: str) -> list[float]:
    return [float(share) for share in re.findall(r"([\d.]+)%", line)]


def _clinc_or_skip() -> None:
    try:
        data.load("clinc")
    except data.DataError as absent:
        pytest.skip(str(absent))


@pytest.mark.parametrize("document", ["README.md", "docs/quickstart.md"])
def test_documents_show_what_data_check_prints_on_the_tutorials_file(document, tmp_path):
    cells = nbformat.read(FOLDER / "your-own-csv.ipynb", as_version=4).cells
    writes = next(cell.source for cell in cells if cell.cell_type == "code")
    exec(writes.replace('folder / "requests.csv"', f"Path({str(tmp_path)!r}, 'mine.csv')"), {})
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", "data", "check", "mine.csv"]
    path = os.pathsep.join([str(FOLDER.parents[1]), os.environ.get("PYTHONPATH", "")])
    said = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    shown = re.findall(r"^```text\n(.*?)^```", (FOLDER.parents[1] / document).read_text(encoding="utf-8"), re.M | re.S)
    assert said.stdout + said.stderr in shown or said.stderr + said.stdout in shown
