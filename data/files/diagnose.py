"""Why polars could not read a file, in one line that a person can act on.

polars stops at the first fault with a message about offsets and schemas. When the file is at hand it is read again,
slowly, to find the line: worth it, since it happens once and only to a file that failed. For a URL there is nothing
to read again and polars' own words are passed on.
"""

from __future__ import annotations

import csv
from pathlib import Path

from data.errors import DataError, quoted


def diagnosed(source: str, place: str, kind: str, error: Exception) -> DataError:
    """Return the error for `source` (read from `place` as format `kind`), which polars refused with `error`."""
    path = Path(place)
    if path.is_file() and path.stat().st_size == 0:
        return DataError(f"{source} is empty", "give it a header and rows")
    readable = path.is_file() and not isinstance(error, PermissionError)
    if readable and kind != ".parquet" and path.suffix.lower() not in (".gz", ".zst"):
        found = _not_utf8(source, path)
        if found is None and kind in (".csv", ".tsv"):
            found = _malformed(source, path, "\t" if kind == ".tsv" else ",")
        if found is not None:
            return found
    said = quoted(" ".join(str(error).split()), 200)
    return DataError(f"cannot read {source} as {kind[1:]}: {said}", "check that it is there, readable and of that kind")


def _not_utf8(source: str, path: Path) -> DataError | None:
    """Return the error for the first line that is not UTF-8."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return DataError(
                    f"{source}, line {number}: byte 0x{line[error.start]:02X} is not UTF-8",
                    "save the file as UTF-8, for instance: iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW",
                )
    return None


def _malformed(source: str, path: Path, separator: str) -> DataError | None:
    """Return the error for the first row with more fields than the header, or for an unclosed quotation mark."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        records = csv.reader(stream, delimiter=separator, strict=True)
        row, width, start = 0, None, 1
        try:
            for record in records:
                if width is None:
                    width = len(record)
                elif len(record) > width:
                    return DataError(
                        f"{source}, row {row} (line {start}): {len(record)} fields under {width} columns",
                        "put texts that hold the separator between double quotation marks",
                    )
                row, start = row + 1, records.line_num + 1
        except csv.Error as error:
            if "field limit" in str(error):  # a long text, which may well be meant
                return None
            return DataError(
                f"{source}, row {row} (line {start}): a quotation mark is not closed as it should be",
                'close it, and write a quotation mark inside a quoted field as ""',
            )
    return None
