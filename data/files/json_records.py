"""JSON and JSON lines into records, whichever of their usual shapes a file has.

Python's own parser reads them, line by line where there are lines: polars' reader turns nested values and mixed types
into strings without a word. A million lines take some ten seconds. An object inside a record becomes columns with
dotted names; a list stays one value. A name that stands twice in one object, which parsers drop silently, is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import polars as pl

from data.errors import DataError, quoted
from data.files.json_shapes import Number, shaped
from data.files.records import FileFormat, Kind, KindName, Records, unnamed
from data.files.stream import Stream, open_stream

_CHUNK = 20_000
_HALF_PAIR = re.compile("[\ud800-\udfff]")


def open_jsonl(source: str, place: str, format: FileFormat) -> Records:
    """Read one JSON object, list or string per line; blank lines count but are no records.

    :raises DataError: for a line that is not, with its number.
    """
    stream = open_stream(source, place, format.encoding)
    if stream.empty:
        raise DataError(f"{source} is empty", "give it rows")
    return _collected(stream, _of_lines(stream))


def open_json(source: str, place: str, format: FileFormat) -> Records:
    """Read a JSON file: a list of records, an object of them keyed by id, columns, splits, or one object per line.

    :raises DataError: if it is not JSON, or of none of these shapes.
    """
    stream = open_stream(source, place, format.encoding)
    if stream.empty:
        raise DataError(f"{source} is empty", "give it rows")
    text = stream.text()
    try:
        value = _parsed(text)
    except (ValueError, RecursionError) as error:
        if "Extra data" in str(error) or ("{" in text.split("\n", 1)[0] and "}" in text.split("\n", 1)[0]):
            return _collected(stream, _of_lines(stream))
        where = f", line {error.lineno:,}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"{source}{where}: not JSON ({_reason(error)})", "correct it, or save it as CSV") from error
    records, notes = shaped(source, value)
    return _collected(stream, enumerate(records, start=1), notes)


def _parsed(text: str) -> Any:
    return json.loads(
        text.removeprefix("\ufeff"),
        parse_int=Number,
        parse_float=Number,
        parse_constant=lambda _: None,
        object_pairs_hook=_distinct,
    )


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return made


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error).split(": line")[0]


def _of_lines(stream: Stream) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(_whole_lines(stream), start=1):
        if not line.strip():
            continue
        try:
            yield number, _parsed(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{stream.source}, row {number:,}: not JSON ({_reason(error)}): {quoted(line)}",
                "write one JSON object per line",
            ) from error


def _whole_lines(stream: Stream) -> Iterator[str]:
    r"""Yield lines that end in ``\n``: a lone ``\\r`` is white space to JSON."""
    parts: list[str] = []
    for line in stream.lines():
        parts.append(line)
        if line.endswith("\n"):
            yield "".join(parts)
            parts = []
    if parts:
        yield "".join(parts)


def _collected(stream: Stream, records: Iterable[tuple[int, Any]], notes: tuple[str, ...] = ()) -> Records:
    """Turn numbered JSON values into columns, a chunk at a time."""
    chunks: list[pl.DataFrame] = []
    numbers: list[int] = []
    kinds: dict[str, dict[str, Kind]] = {}
    named = True
    records = iter(records)
    while chunk := list(islice(records, _CHUNK)):
        rows = []
        for number, value in chunk:
            named = named and isinstance(value, dict)
            rows.append(_flat(_object(stream.source, number, value)))
        own = [number for number, _ in chunk]
        columns = dict.fromkeys(key for row in rows for key in row)
        frame = {
            name: _column(stream.source, name, [row.get(name) for row in rows], own, kinds.setdefault(name, {}))
            for name in columns
        }
        chunks.append(pl.DataFrame(frame, height=len(rows)) if frame else pl.DataFrame(height=len(rows)))
        numbers += own
    table = pl.concat(chunks, how="diagonal") if chunks else pl.DataFrame()
    return Records(
        stream.source,
        table,
        pl.Series(numbers, dtype=pl.Int64),
        {name: tuple(found.values()) for name, found in kinds.items()},
        tuple(note for note in (stream.note,) if note) + notes,
        named=named,
    )


def _object(source: str, number: int, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    if isinstance(value, list) and value:
        return dict(zip(unnamed(len(value)), value, strict=True))
    if isinstance(value, str) and not isinstance(value, Number):
        return {"column1": value}
    raise DataError(
        f"{source}, row {number:,}: not a JSON object: {quoted(json.dumps(value))}", "write one JSON object per line"
    )


def _flat(record: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    if not any(isinstance(value, dict) for value in record.values()):
        return {prefix + key: value for key, value in record.items()} if prefix else record
    flat: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _column(source: str, name: str, values: list[Any], numbers: list[int], kinds: dict[str, Kind]) -> pl.Series:
    if not set(map(type, values)) <= {str, type(None)}:
        values = [_text(value, number, kinds) for value, number in zip(values, numbers, strict=True)]
    try:
        return pl.Series(name, values, dtype=pl.String)
    except UnicodeEncodeError as error:
        number, value = next(one for one in zip(numbers, values, strict=True) if _HALF_PAIR.search(one[1] or ""))
        raise DataError(
            f"{source}, row {number:,}: {name} holds half a surrogate pair: {quoted(ascii(value))}",
            "write the whole character",
        ) from error


_TEXT_OF: dict[type, tuple[KindName, Callable[[Any], str]]] = {
    Number: ("number", str),
    bool: ("truth value", lambda value: "true" if value else "false"),
    list: ("list", lambda value: json.dumps(_plain(value), ensure_ascii=False)),
}


def _text(value: Any, number: int, kinds: dict[str, Kind]) -> str | None:
    """Return a JSON value as text, and keep the first of each kind that is none."""
    if value is None or type(value) is str:
        return value
    kind, write = _TEXT_OF[type(value)]
    text = write(value)
    if kind not in kinds:
        kinds[kind] = Kind(kind, number, text)
    return text


def _plain(value: Any) -> Any:
    """Return a list with its numbers as text, as they were written."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Number) else value
