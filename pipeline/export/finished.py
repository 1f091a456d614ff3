"""What an export notes of itself, so that a rerun finds its own work done and touches nothing else.

A model's folder holds `export.json`: which run, which options, what was reported, and a digest of every file. A Parquet
file carries run and options in its metadata; so does the table of a FAISS index, with the digest of the index. The
alternative, to refuse whatever stands there, fails the rerun of an export that was killed when its file was in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.export.vectors import INDEX, rows_file
from pipeline.workspace.outputs import made_by
from pipeline.workspace.records import DamagedError, content_of, file_digest, read_record, write_record
from pipeline.workspace.runs import Run

EXPORT = "export.json"
MODEL_FORMAT = 2
"""A change in what a model's folder computes gets another number: what was written before is not called complete."""


@dataclass(frozen=True)
class _Export:
    facts: dict[str, Any]
    files: dict[str, str]
    result: dict[str, Any]


def facts_of(run: Run, kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """What an export is made of: run, digest of its head, and options, JSON values only."""
    head = content_of(run.folder / "head.safetensors")
    return {"command": "export", "format": kind, "run": run.id, "head": file_digest(head or b""), **options}


def note(folder: Path, facts: dict[str, Any], result: dict[str, Any]) -> None:
    """Write `export.json` into a folder in which everything else is written."""
    write_record(folder / EXPORT, {"facts": facts, "files": _digests(folder), "result": result})


def finished_model(folder: Path, facts: dict[str, Any]) -> dict[str, Any] | None:
    """What was reported when the same export was written to `folder`; None if something else stands there, or nothing.

    :raises DamagedError: if it is that export, and a file of it was changed since.
    """
    if not folder.is_dir():
        return None
    noted = read_record(folder / EXPORT, _Export)
    if noted is None or noted.facts != facts:
        return None
    found = _digests(folder)
    for name in sorted(noted.files):
        if found.get(name) != noted.files[name]:
            what = "its content does not match its digest" if name in found else "it is missing"
            raise DamagedError(folder / name, what, f"move {folder} away, then export again")
    return noted.result


def own_index(path: Path, facts: dict[str, Any]) -> bool:
    """Whether a FAISS index and its table, or one of them after a kill, are of the same export."""
    made = made_by(rows_file(path))
    if made is None:
        return False
    index = made.pop(INDEX, None)
    return made == facts and (not path.is_file() or file_digest(path.read_bytes()) == index)


def _digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != EXPORT)
    return {path.relative_to(folder).as_posix(): file_digest(path.read_bytes()) for path in files}
