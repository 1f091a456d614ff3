"""Run the notebooks of docs/tutorials and keep what they print in them, so that the site shows it.

    python scripts/run_tutorials.py                       # all, some minutes on two cores
    python scripts/run_tutorials.py your-own-csv          # one

Kept is what goes to standard output and what a cell's last line returns as text: no progress, no times, no state of the
kernel. CLINC150 must be at hand (PIPELINE_DATA or a network), since its notebook falls back to another dataset.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nbformat

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "tutorials"
PLAIN = "text/plain"


def executed(path: Path, folder: Path) -> nbformat.NotebookNode:
    """Return the notebook with the outputs of a kernel of its own that works in `folder`."""
    import nbclient

    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=1200, kernel_name="python3", resources=place).execute()
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = _kept(cell.outputs)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def _kept(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """What a cell printed, as one output however many writes it took, and what its last line returned."""
    said = "".join(output.text for output in outputs if output.get("name") == "stdout")
    kept = [nbformat.v4.new_output("stream", name="stdout", text=said)] if said else []
    for output in outputs:
        if output.output_type == "execute_result":
            output.data = {PLAIN: output.data[PLAIN]}
            kept.append(output)
    return kept


def printed(notebook: nbformat.NotebookNode) -> str:
    """Return what the cells print, one after another."""
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    return "".join(output.text for output in outputs if output.get("name") == "stdout")


def main() -> None:
    """Run the notebooks that are named, or all."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        if len(sys.argv) == 1 or path.stem in sys.argv[1:]:
            with tempfile.TemporaryDirectory() as folder:
                notebook = executed(path, Path(folder))
            path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
            print(f"{path.name}: {len(printed(notebook).splitlines())} lines of output")


if __name__ == "__main__":
    main()
