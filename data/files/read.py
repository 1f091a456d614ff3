"""One file or URL into records, by its suffix or first bytes; what a library raises becomes an error of one line."""

from __future__ import annotations

import csv
import json
import lzma
import re
import shlex
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path

import polars as pl

from data.errors import DataError, quoted
from data.files.columnar import open_excel, open_parquet
from data.files.delimited import open_delimited
from data.files.json_records import open_json, open_jsonl
from data.files.locate import compression_of, in_archive, is_url, located, stem, suffix_of
from data.files.records import FileFormat, Records, without_repeated_names

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

_CONVERTED = {
    ".xml": 'pandas.read_xml({0}, parser="etree").to_csv({1}, index=False)',
    ".html": "pandas.read_html({0})[0].to_csv({1}, index=False)",
    ".feather": "pandas.read_feather({0}).to_csv({1}, index=False)",
    ".arrow": "pandas.read_feather({0}).to_csv({1}, index=False)",
}
"""Suffix of a kind that is not read -> Python that makes a CSV file of it."""


def open_source(source: str, format: FileFormat | None = None) -> Records:
    """Read a path or URL by its suffix (`FORMATS`).

    :raises DataError: for a missing file, a directory, an unknown suffix, or content that is not of that format; says
        which row and why.
    """
    place = located(source)
    suffix = suffix_of(source)
    if suffix not in FORMATS and suffix not in _CONVERTED:
        what = f"of unknown kind {quoted(suffix)}" if suffix else "without a suffix that says its kind"
        raise DataError(f"{source} is a file {what}", f"use one of {', '.join(FORMATS)}, or a built-in name")
    opaque = is_url(place) or in_archive(place) or compression_of(source) or suffix in _CONVERTED
    with _as_data_errors(source, place, suffix):
        kind = suffix if opaque else _kind_of_content(source, place, suffix)
        if kind in _CONVERTED:
            code = _CONVERTED[kind].format(json.dumps(place), json.dumps(stem(place) + "-table.csv"))
            raise DataError(
                f"{source} is {kind[1:].upper()}, which is not read",
                f"make a table of it, with one row per text: python -c {shlex.quote('import pandas; ' + code)}",
            )
        records = without_repeated_names(FORMATS[kind](source, place, format or FileFormat()))
        if kind != suffix:
            records = replace(records, notes=(f"{source} holds {kind[1:]}, not {suffix[1:]}", *records.notes))
        return records


def _kind_of_content(source: str, place: str, suffix: str) -> str:
    """Return the suffix that the first bytes of a local file ask for where its own says something else."""
    with Path(place).open("rb") as file:
        head = file.read(200)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(b"version https://git-lfs"):
        raise DataError(f"{source} is a pointer of Git LFS, not the data", "fetch the data: git lfs pull")
    if head.startswith(b"PAR1"):
        return ".parquet"
    if head.startswith(b"PK\3\4") and FORMATS[suffix] is not open_excel:
        with zipfile.ZipFile(place) as archive:
            if "xl/workbook.xml" in archive.namelist():
                return ".xlsx"
        raise DataError(f"{source} is a ZIP archive", f"unpack it, or name it so: {stem(place)}{suffix}.zip")
    if text.startswith((b"<!doctype html", b"<html")):
        return ".html"
    if text.startswith(b"<?xml"):
        return ".xml"
    if FORMATS[suffix] is open_delimited and re.match(rb'(\[\s*)?\{\s*"', text):
        return ".json"
    return suffix


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
        HTTPException,
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
