"""Files and URLs into columns of text: CSV, Parquet, JSON lines, whatever polars can reach.

Everything is read as text: a label ``01`` stays ``01``, and no guess about types turns a column of codes into numbers
with holes. polars splits JSON lines (so ``hf://`` and ``s3://`` work as for the others), but Python parses them one by
one, because polars' own reader turns nested values and mixed types into strings without a word. The price: loading a
million rows of them takes nine seconds, where CSV takes three. A file is read by hand only when polars refused it, to
say what is wrong and where.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import polars as pl

from data.errors import DataError, listed, quoted
from data.files.diagnose import diagnosed
from data.files.locate import is_pattern, located, suffix_of

Role = Literal["text", "label", "split"]
"""What a column is read for: texts must be strings, labels and splits may also be numbers or truth values."""


@dataclass(frozen=True)
class Opened:
    """An opened source: the columns it has, how many rows, and a way to read some of them as strings.

    `read` takes column -> role and returns a frame of these columns, type String, null where a value is missing.
    `numbers`: for each row the number its reader sees, 1-based; blank lines count but are not rows.
    """

    columns: tuple[str, ...]
    numbers: pl.Series
    read: Callable[[Mapping[str, Role]], pl.DataFrame]


def open_source(source: str) -> Opened:
    """Open a path or URL by its suffix (`FORMATS`).

    :raises DataError: for a missing file, a directory, an unknown suffix, or content that is not of that format; says
        which line and why, where the file is at hand.
    """
    place = located(source)
    kind = _format_of(source)
    with _told(source, place, kind):
        opened = FORMATS[kind](source, place)

    def read(wanted: Mapping[str, Role]) -> pl.DataFrame:
        with _told(source, place, kind):
            return opened.read(wanted)

    return replace(opened, read=read)


@contextmanager
def _told(source: str, place: str, kind: str) -> Iterator[None]:
    """Turn what polars and the system raise into this package's error; what is one already passes."""
    try:
        yield
    except DataError:
        raise
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, UnicodeError) as error:
        raise diagnosed(source, place, kind, error) from error


def _format_of(source: str) -> str:
    suffix = suffix_of(source)
    if suffix not in FORMATS:
        what = f"of unknown kind {quoted(suffix)}" if suffix else "without a suffix that says its kind"
        raise DataError(f"{source} is a file {what}", f"use one of {', '.join(FORMATS)}, or a built-in name")
    return suffix


def _open_csv(source: str, place: str, separator: str = ",") -> Opened:
    frame = (
        pl.scan_csv(place, infer_schema=False, separator=separator, glob=is_pattern(place))
        .collect()
        .with_row_index("\0row", offset=1)
    )
    columns = tuple(frame.columns[1:])
    _check_header(source, columns)
    frame = frame.filter(~pl.all_horizontal(pl.col(columns).is_null()))
    return Opened(columns, frame.get_column("\0row"), lambda wanted: frame.select(list(wanted)))


def _check_header(source: str, columns: tuple[str, ...]) -> None:
    """Refuse what polars lets pass: a name that is not UTF-8 (replaced), a repeated one (the second renamed)."""
    for column in columns:
        if "\N{REPLACEMENT CHARACTER}" in column:
            raise UnicodeError(f"column {column} is not UTF-8")
        original = re.sub(r"_duplicated_\d+$", "", column)
        if original != column and original in columns:
            raise DataError(f"{source} has two columns {quoted(original)}", "rename or remove one")


def _open_tsv(source: str, place: str) -> Opened:
    return _open_csv(source, place, "\t")


def _open_parquet(source: str, place: str) -> Opened:
    lazy = pl.scan_parquet(place, glob=is_pattern(place))
    schema = lazy.collect_schema()
    rows = lazy.select(pl.len()).collect().item()

    def read(wanted: Mapping[str, Role]) -> pl.DataFrame:
        for column, role in wanted.items():
            _check_type(source, column, role, schema[column])
        return lazy.select(pl.col(column).cast(pl.String) for column in wanted).collect()

    return Opened(tuple(schema), pl.int_range(1, rows + 1, eager=True), read)


def _check_type(source: str, column: str, role: Role, dtype: pl.DataType) -> None:
    words = dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null)
    plain = words or dtype.is_numeric() or dtype.is_temporal() or dtype == pl.Boolean
    if not (words if role == "text" else plain):
        raise DataError(
            f"{source}: column {column} holds {dtype}, not {'text' if role == 'text' else 'labels'}",
            "name the column of texts with --text" if role == "text" else "write one plain value a row",
        )


class _Number(str):
    """A JSON number as it was written."""

    __slots__ = ()


def _open_jsonl(source: str, place: str) -> Opened:
    # A separator that JSON forbids unescaped makes each line one field, whatever it holds.
    lines = pl.scan_csv(
        place, has_header=False, infer_schema=False, separator="\x1e", quote_char=None, glob=is_pattern(place)
    ).collect()
    records, numbers = [], []
    for number, line in enumerate(lines.to_series(), start=1):
        if line is not None and line.strip():
            records.append(_record(source, number, line))
            numbers.append(number)
    columns = tuple(dict.fromkeys(key for record in records for key in record))

    def read(wanted: Mapping[str, Role]) -> pl.DataFrame:
        return pl.DataFrame(
            {
                column: [
                    _plain(source, number, column, role, record.get(column))
                    for number, record in zip(numbers, records, strict=True)
                ]
                for column, role in wanted.items()
            },
            schema=dict.fromkeys(wanted, pl.String),
        )

    return Opened(columns, pl.Series(numbers, dtype=pl.Int64), read)


def _record(source: str, number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line, parse_int=_Number, parse_float=_Number, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{source}, row {number}: not JSON ({error}): {quoted(line)}", "write one JSON object a line"
        ) from error
    if not isinstance(record, dict):
        raise DataError(f"{source}, row {number}: not a JSON object: {quoted(line)}", "write one JSON object a line")
    return record


def _plain(source: str, number: int, column: str, role: Role, value: Any) -> str | None:
    """Return a JSON value as the string it stands for, null as None."""
    if value is None:
        return None
    if isinstance(value, bool) and role != "text":
        return "true" if value else "false"
    if not isinstance(value, str) or (role == "text" and isinstance(value, _Number)):
        raise DataError(
            f"{source}, row {number}: {column} is {quoted(json.dumps(value))}, not a {role}",
            "write one string a field" if role == "text" else "write one string or number a field",
        )
    return _encodable(source, number, column, str(value))


def _encodable(source: str, number: int, column: str, value: str) -> str:
    """Refuse half a surrogate pair, which JSON can escape and UTF-8 cannot hold."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{source}, row {number}: {column} holds half a surrogate pair: {quoted(ascii(value))}",
            "write the whole character",
        ) from error
    return value


FORMATS: dict[str, Callable[[str, str], Opened]] = {
    ".csv": _open_csv,
    ".tsv": _open_tsv,
    ".parquet": _open_parquet,
    ".jsonl": _open_jsonl,
    ".ndjson": _open_jsonl,
}
"""File suffix -> how it is opened; ``.gz`` or ``.zst`` may follow a CSV's or JSON lines' suffix."""


def other_separator(source: str, opened: Opened) -> DataError | None:
    """Return the error for a table whose one column is several, parted by something else than commas, or None."""
    found = [mark for mark in ";\t|" if len(opened.columns) == 1 and mark in opened.columns[0]]
    if not found:
        return None
    return DataError(
        f"{source} has one column, {quoted(opened.columns[0])}: it seems separated by {found[0]!r}, not by commas",
        "separate it by commas, or save it as Parquet; separated by tabs it is read under a name that ends in .tsv",
    )


def missing_columns(source: str, opened: Opened, wanted: list[str]) -> DataError | None:
    """Return the error for columns that `opened` lacks, or None."""
    missing = [column for column in wanted if column not in opened.columns]
    if not missing:
        return None
    if fault := other_separator(source, opened):
        return fault
    return DataError(
        f"{source} has no column {listed(quoted(column) for column in missing)}",
        f"it has {listed((quoted(column) for column in opened.columns), len(opened.columns))}: name yours with --text "
        "and --levels",
    )
