"""The usual shapes of a JSON file that is no list of records: each becomes records.

Tried in order, the first that holds is taken and said: parts that are splits, texts keyed by their label, columns,
records keyed by id, and a list of records inside an object.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from data.errors import DataError, listed, quoted
from data.files.records import unnamed
from data.splits import split_of_word

_NAMES = {"text", "label", "labels", "category", "sentence", "title", "content"}
_RECORDS = {"data", "rows", "records", "items", "examples", "documents", "entries", "results"}


class Number(str):
    """A JSON number as it was written."""

    __slots__ = ()


def shaped(source: str, value: Any) -> tuple[list[Any], tuple[str, ...]]:
    """Return the records that a parsed file holds, and a note on the shape that was found.

    :raises DataError: if it has none of the shapes.
    """
    if isinstance(value, list):
        return value, ()
    while isinstance(value, dict) and len(value) == 1 and isinstance(inner := next(iter(value.values())), dict):
        value = inner  # {"data": {...}}
    if isinstance(value, dict) and value:
        for shape in (_of_splits, _by_label, _of_columns, _by_id, _wrapped):
            if found := shape(value):
                return found[0], (f"{source}: {found[1]}",)
    raise DataError(
        f"{source}: a JSON file that holds neither records nor columns nor records keyed by id",
        "write a list of objects, or one object per line",
    )


_Shape = tuple[list[Any], str] | None


def _of_splits(value: Mapping[str, Any]) -> _Shape:
    """``{"train": [record, ...], "test": [record, ...]}``."""
    lists = all(isinstance(part, list) for part in value.values())
    words = {name: _split_in(name) or name for name in value}
    if not lists or not any(map(_split_in, value)):
        return None
    records: list[Any] = []
    for key, part in value.items():
        name = words[key]
        for record in part:
            if isinstance(record, dict):
                records.append({**record, "split": name})
            elif isinstance(record, list):
                records.append({**dict(zip(unnamed(len(record)), record, strict=True)), "split": name})
            else:
                records.append({"column1": record, "split": name})
    said = [name if name == word or split_of_word(name) else f"{name} ({word})" for name, word in words.items()]
    return records, f"the parts {listed(said, len(said))} are the splits"


def _split_in(name: str) -> str | None:
    """Return the split that a part's name says, such as train or oos_train, or None."""
    found = {split for word in re.split(r"[^a-z]+", name.lower()) if (split := split_of_word(word))}
    return found.pop() if len(found) == 1 else None


def _of_columns(value: Mapping[str, Any]) -> _Shape:
    """``{"text": ["a", ...], "label": [...]}``, or as pandas writes it: ``{"text": {"0": "a", ...}, ...}``."""
    parts = list(value.values())
    if all(isinstance(part, list) for part in parts) and len({len(part) for part in parts}) == 1 and len(parts) > 1:
        columns = {name: list(part) for name, part in value.items()}
    elif all(isinstance(part, dict) and part for part in parts) and len({tuple(part) for part in parts}) == 1:
        rows = list(parts[0])
        if not (set(map(str.lower, value)) & _NAMES or rows == [str(i) for i in range(len(rows))]):
            return None
        columns = {name: list(part.values()) for name, part in value.items()}
    else:
        return None
    records = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return records, f"an object of columns ({listed(map(quoted, columns), len(columns))})"


def _by_label(value: Mapping[str, Any]) -> _Shape:
    """``{"sport": ["a text", ...], "art": [...]}``, or labels in labels, coarsest first."""
    paths = list(_texts_of_labels(value, ()))
    depths = {len(path) for path, _ in paths}
    names = [path for path, texts in paths for _ in texts]
    finest = {path[-1] for path, _ in paths}
    lists = len(paths)
    if len(depths) != 1 or lists < 2 or len(names) < 2 * lists or len(finest) < lists or (finest & _NAMES):
        return None
    if any(not isinstance(text, str) or isinstance(text, Number) for _, texts in paths for text in texts):
        return None
    texts = [text for _, found in paths for text in found]
    columns = lists == 2 and len(paths[0][1]) == len(paths[1][1])
    if columns or len(set(texts)) < 0.9 * len(texts):
        return None
    (depth,) = depths
    levels = [f"level{level}" for level in range(depth)] if depth > 1 else ["label"]
    records = [
        dict(zip((*levels, "text"), (*path, text), strict=True)) for path, text in zip(names, texts, strict=True)
    ]
    return records, f"lists of texts keyed by {' > '.join(levels)}"


def _texts_of_labels(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    if isinstance(value, Mapping):
        for name, below in value.items():
            yield from _texts_of_labels(below, (*path, name))
    else:
        yield path, value if isinstance(value, list) else [None]


def _by_id(value: Mapping[str, Any]) -> _Shape:
    """``{"q1": {"text": ...}, "q2": {...}}``."""
    if not all(isinstance(part, dict) for part in value.values()):
        return None
    key = "id" if not any("id" in part for part in value.values()) else "key"
    return [{key: name, **part} for name, part in value.items()], f"records keyed by {key}"


def _wrapped(value: Mapping[str, Any]) -> _Shape:
    """``{"version": 1, "data": [record, ...]}``, or one such object in another."""
    lists = [(name, part) for name, part in value.items() if isinstance(part, list) and part]
    objects = [(name, part) for name, part in lists if all(isinstance(one, dict) for one in part)]
    objects = [(name, part) for name, part in objects if name.lower() in _RECORDS] or objects
    return (objects[0][1], f"the records are in {quoted(objects[0][0])}") if len(objects) == 1 else None
