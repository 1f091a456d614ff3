"""Tutorials: every notebook is really executed in a kernel of its own, and none carries outputs of an earlier time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "tutorials"


def printed(name: str, folder: Path) -> str:
    """What the cells of a notebook print when it runs in `folder`."""
    notebook = nbformat.read(FOLDER / name, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    return "".join(output.text for output in outputs if output.get("name") == "stdout")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs_and_stand_on_the_site(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    assert f"tutorials/{path.name}" in (FOLDER.parents[1] / "mkdocs.yml").read_text(encoding="utf-8")


def test_own_csv(tmp_path):
    said = printed("your-own-csv.ipynb", tmp_path)
    assert "labels are in columns 'area' > 'topic'" in said
    assert "topic 'late' under 'billing' (row 2), 'delivery' (row 1)" in said
    assert "delivery > late" in said
    assert not list(tmp_path.iterdir())


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


@pytest.mark.slow
def test_two_stage_search(tmp_path):
    said = printed("two-stage-search.ipynb", tmp_path)
    shares = [float(line.split()[-1].rstrip("%")) for line in said.splitlines() if "recall@10" in line]
    assert shares == sorted(shares)
    assert shares[-1] == 100.0  # as many candidates as documents: nothing can be lost


@pytest.mark.slow
def test_clinc_in_five_minutes(tmp_path):
    said = printed("clinc-in-five-minutes.ipynb", tmp_path)
    assert said.rstrip().endswith("(1, 64)")
