"""A folder of classes: one file per text, in folders called after their labels, such as ``train/sport/0001.txt``.

Folders in folders are levels, coarsest first; a folder whose name says a split is one. The whole file is the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from data.errors import DataError, listed
from data.files.records import FileFormat, Records
from data.files.stream import open_stream
from data.splits import split_of_word

_ASIDE = {"readme", "license", "licence", "citation", "makefile"}


def text_files(folder: str) -> list[Path] | None:
    """Return the files of a folder of classes, sorted; None if it is another folder.

    It is one if all its files are texts (``.txt`` or no suffix, or numbers) in folders of classes, two or more, with
    more files than folders.
    """
    root = Path(folder).expanduser()
    found = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    found = [path for path in found if path.stem.lower() not in _ASIDE]
    if not found or any(path.suffix.lower() not in ("", ".txt") and not path.suffix[1:].isdigit() for path in found):
        return None
    paths = {_labels(root, path) for path in found}
    return found if () not in paths and len(paths) > 1 and len(found) > 2 * len(paths) else None


def read_text_files(folder: str, files: Sequence[Path], format: FileFormat) -> Records:
    """Return one record per file: columns text, one per level of folders (label, or level0, level1, ...), split.

    :raises DataError: if a file cannot be decoded.
    """
    root = Path(folder).expanduser()
    rows: dict[str, list[str | None]] = {"text": [], "split": []}
    paths: list[tuple[str, ...]] = []
    for file in files:
        stream = open_stream(str(file), str(file), format.encoding)
        rows["text"].append(stream.text().strip() or None)
        rows["split"].append(next((one for part in _parts(root, file) if (one := _split(part))), None))
        paths.append(_labels(root, file))
    depth = max(map(len, paths))
    for level in range(depth):
        name = f"level{level}" if depth > 1 else "label"
        rows[name] = [path[level] if len(path) > level else None for path in paths]
    if None in rows["split"]:
        if any(rows["split"]):
            without = listed(str(file) for file, split in zip(files, rows["split"], strict=True) if split is None)
            raise DataError(f"{folder}: {without} lie in no folder of a split", "move them, or name a folder of one")
        del rows["split"]
    note = f"{folder}: one text per file, {len(files):,} files; labels are the names of folders"
    numbers = pl.Series([str(file.relative_to(root)) for file in files], dtype=pl.String)
    return Records(folder, pl.DataFrame(rows, schema=dict.fromkeys(rows, pl.String)), numbers, notes=(note,))


def _parts(root: Path, file: Path) -> tuple[str, ...]:
    return file.relative_to(root).parts[:-1]


def _labels(root: Path, file: Path) -> tuple[str, ...]:
    return tuple(part for part in _parts(root, file) if _split(part) is None)


def _split(folder: str) -> str | None:
    """Return the split that a folder's name says: train, or 20news-bydate-test."""
    return split_of_word(folder) or split_of_word(folder.replace("_", "-").rsplit("-", 1)[-1])
