"""One file or URL into records, by its suffix; what a library raises becomes an error of one line."""

from __future__ import annotations

import csv
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from data.errors import DataError, quoted
from data.files.columnar import open_excel, open_parquet
from data.files.delimited import open_delimited
from data.files.json_records import open_json, open_jsonl
from data.files.locate import located, suffix_of
from data.files.records import FileFormat, Records

FORMATS: dict[str, Callable[[str, str, FileFormat], Records]] = {
    ".csv": open_delimited,
    ".tsv": open_delimited,
    ".parquet": open_parquet,
    ".jsonl": open_jsonl,
    ".ndjson": open_jsonl,
    ".json": open_json,
    ".txt": open_delimited,
    ".xlsx": open_excel,
    ".tab": open_delimited,
    ".psv": open_delimited,
    ".pq": open_parquet,
    ".xls": open_excel,
    ".ods": open_excel,
}
"""File suffix -> how it is opened; the suffix of a compression may follow that of a text file."""


def open_source(source: str, format: FileFormat | None = None) -> Records:
    """Read a path or URL by its suffix (`FORMATS`).

    :raises DataError: for a missing file, a directory, an unknown suffix, or content that is not of that format; says
        which row and why.
    """
    place = located(source)
    suffix = suffix_of(source)
    if suffix not in FORMATS:
        what = f"of unknown kind {quoted(suffix)}" if suffix else "without a suffix that says its kind"
        raise DataError(f"{source} is a file {what}", f"use one of {', '.join(FORMATS)}, or a built-in name")
    with _as_data_errors(source, place, suffix):
        return FORMATS[suffix](source, place, format or FileFormat())


@contextmanager
def _as_data_errors(source: str, place: str, kind: str) -> Iterator[None]:
    """Turn what polars, the decompressors and the system raise into this package's error."""
    try:
        yield
    except DataError:
        raise
    except (
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
        OSError,
        EOFError,
        UnicodeError,
        csv.Error,
        zlib.error,
        lzma.LZMAError,
        zipfile.BadZipFile,
    ) as error:
        path = Path(place)
        if path.is_file() and path.stat().st_size == 0:
            raise DataError(f"{source} is empty", "give it a header and rows") from error
        said = quoted(" ".join(str(error).split()), 200)
        raise DataError(
            f"cannot read {source} as {kind[1:]}: {said}", "check that it is there, readable and of that kind"
        ) from error
