"""Names and parents of labels that a file of their own gives: ids with names, edges, mappings, adjacency tables.

A tree is read from JSON or TOML (parent: children, nested as deep as it is, or child: parent; or networkx's node-link
form), from a table of two columns (an edge per row) or of id, parent and name. A row's label may be any node: its
ancestors are the coarser levels, and a node above the leaves means a text of uneven depth.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import combinations
from pathlib import Path
from shlex import quote
from typing import Any

import polars as pl

from data.errors import DataError, listed, quoted
from data.files.locate import is_there, is_url, local, located, suffix_of
from data.files.read import FORMATS, open_source
from data.files.records import FileFormat, mean
from data.files.stream import open_stream

_PARENT = ("parent", "parent_id", "parentid", "parent_code", "broader", "source", "from", "head")
_CHILD = ("id", "code", "child", "node", "label", "key", "target", "to", "tail", "class")
_BESIDE = re.compile(r"hierarchy|taxonomy|ontology|tree|parents|edge_?list|classes|label|domains|mapping|names")
_MOST_BESIDE = 1_000
_SMALL = 10_000_000  # bytes
_NAME = ("name", "title", "label", "description", "text")


def named(frame: pl.DataFrame, files: Sequence[str]) -> pl.DataFrame:
    """Return `frame` (levels) with the names that `files` (``FILE`` or ``LEVEL=FILE``) give its labels.

    :raises DataError: if a file cannot be read or names no label of any level it is for.
    """
    for one in files:
        level, _, file = one.rpartition("=")
        if level and level not in frame.columns:
            raise DataError(f"--names {one}: there is no level {quoted(level)}", f"use {listed(frame.columns, 99)}")
        found = {column: _names_of(file, frame.get_column(column)) for column in ([level] if level else frame.columns)}
        shares = {column: mean(frame.get_column(column).drop_nulls().is_in(list(found[column]))) for column in found}
        fitting = [column for column in found if shares[column]]
        if not level and (double := _of_two_levels(frame, fitting)):
            fitting = [max(double, key=lambda column: (shares[column], frame.get_column(column).n_unique()))]
        for column in fitting:
            frame = frame.with_columns(frame.get_column(column).replace(distinct_names(found[column])).alias(column))
        if not fitting:
            raise DataError(f"{file} names none of the labels", "check that its first column holds the ids of the rows")
    return frame


def distinct_names(names: Mapping[str, str]) -> dict[str, str]:
    """Return id -> name, with the id behind a name that several ids have."""
    counts = Counter(names.values())
    return {one: name if counts[name] == 1 else f"{name} ({one})" for one, name in names.items()}


def _of_two_levels(frame: pl.DataFrame, columns: Sequence[str]) -> list[str]:
    """Return `columns` if two of them use the same ids, such as numbers from 0: then a file names one of them."""
    ids = [set(frame.get_column(column).drop_nulls()) for column in columns]
    return list(columns) if any(one & other for one, other in combinations(ids, 2)) else []


def _names_of(file: str, labels: pl.Series) -> dict[str, str]:
    """Return id -> name: from a mapping, a table of two columns, or lines, which are numbered as the labels are."""
    if suffix_of(file) in (".json", ".toml"):
        value = _value(file)
        if isinstance(value, Mapping):
            if all(isinstance(one, int) for one in value.values()):
                return {str(number): str(name) for name, number in value.items()}
            return {str(key): str(name) for key, name in value.items()}
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            return _numbered(value, labels)
    records = open_source(file, FileFormat(header=None))
    frame = records.frame
    if frame.width == 1:
        lines = frame.to_series().drop_nulls().to_list()
        return _numbered(lines, labels)
    lower = {column.strip().lower(): column for column in reversed(frame.columns)}
    key = next((lower[name] for name in _CHILD if name in lower), frame.columns[0])
    name = next((lower[one] for one in _NAME if one in lower and lower[one] != key), None)
    if name is None:
        name = next(column for column in frame.columns if column != key)
    pairs = frame.select(key, name).drop_nulls()
    if records.named and not {key, name} & set(lower.values()) & {lower.get(one) for one in (*_CHILD, *_NAME)}:
        pairs = pl.concat([pl.DataFrame([[key], [name]], schema=pairs.schema, orient="col"), pairs])  # no header
    return dict(pairs.iter_rows())


def _numbered(lines: Sequence[str], labels: pl.Series) -> dict[str, str]:
    """Number names from 0 or 1, as the labels begin."""
    first = 0 if (labels == "0").any() else 1
    return {str(number): line for number, line in enumerate(lines, start=first)}


_OUTSIDE = {"oos", "out_of_scope", "out-of-scope", "outofscope"}


def ancestors(labels: pl.Series, parents: Mapping[str, str | None], place: str) -> pl.DataFrame:
    """Return the levels of each label, coarsest first, by the tree `parents` (label -> parent, None at the top).

    A node without siblings of its depth keeps its depth: level 0 holds the tree's top nodes. What a dataset calls out
    of scope (``oos``) stands beside them.

    :raises DataError: for a label that is no node, or a tree that goes in a circle.
    """
    paths: dict[str, list[str]] = {}
    for label in labels.drop_nulls().unique():
        if label.lower() in _OUTSIDE and label not in parents:
            paths[label] = [label]
            continue
        if label not in parents:
            raise DataError(f"{place}: the label {quoted(label)} is not in the hierarchy", "add it, or correct the row")
        path, node = [label], parents[label]
        while node is not None:
            if node in path:
                raise DataError(f"the hierarchy goes in a circle at {quoted(node)}", "give every node one parent")
            path.append(node)
            node = parents.get(node)
        paths[label] = path[::-1]
    tops = {path[0] for path in paths.values()}
    if len(tops) == 1 and all(len(path) > 1 for path in paths.values()):  # a root that holds everything is no level
        paths = {label: path[1:] for label, path in paths.items()}
    depth = max((len(path) for path in paths.values()), default=1)
    rows = [tuple((paths[one] + [None] * depth)[:depth]) if one is not None else (None,) * depth for one in labels]
    names = [f"level{number}" for number in range(depth)]
    return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")


def found_beside(source: str, labels: pl.Series) -> tuple[str, ...]:
    """Return notes on files beside `source`, or in the folder that it is, that give parents or names of all `labels`.

    Only small files are looked at, and only those whose names say so, as ``taxonomy.csv`` does.
    """
    if is_url(source) or not is_there(source):
        return ()
    place, values = local(source), labels.drop_nulls().unique()
    folder = place if place.is_dir() else place.parent
    notes = []
    for file in sorted(folder.iterdir())[:_MOST_BESIDE]:
        if file == place or not _BESIDE.search(file.name.lower()) or not file.is_file() or file.stat().st_size > _SMALL:
            continue
        for option, nodes in (("--hierarchy", _nodes), ("--names", partial(_names_of, labels=labels))):
            try:
                fits = values.is_in(list(nodes(str(file)))).all()
            except DataError:
                continue
            if fits:
                what = "parents" if option == "--hierarchy" else "names"
                notes.append(f"{file.name} has the {what} of all labels and is not used ({option} {quote(str(file))})")
                break
    return tuple(notes)


def _nodes(file: str) -> list[str]:
    """Return the labels and their names in a file of parents; none if it has no label below another."""
    parents, names = read_tree(file)
    return [*parents, *names.values()] if any(parents.values()) else []


def read_tree(file: str) -> tuple[dict[str, str | None], dict[str, str]]:
    """Return label -> parent (None at the top) and id -> name, where the file gives names of their own.

    :raises DataError: if it cannot be read, or gives a label two parents.
    """
    if suffix_of(file) in (".json", ".toml"):
        value = _value(file)
        inner = value.get("hierarchy") if isinstance(value, Mapping) else None
        return tree_of(inner if isinstance(inner, Mapping) else value, file)
    lines = suffix_of(file) == ".txt" or suffix_of(file) not in FORMATS
    if lines and (edges := _edges_of_lines(file)) is not None:
        return _parents(edges, file), {}
    frame = open_source(file).frame
    columns = {column.strip().lower(): column for column in reversed(frame.columns)}
    parent = _like(columns, _PARENT, r"parent|broader", ())
    if parent is None:
        if frame.width < 2:
            raise DataError(f"{file} has one column, not a parent and a child", "write an edge per row: parent,child")
        return _parents(((row[1], row[0]) for row in [tuple(frame.columns), *frame.rows()]), file), {}
    child = _like(columns, _CHILD, r"(id|code|child)$", (parent,))
    if child is None:
        child = next(column for column in frame.columns if column != parent)
    missing = ("", "None", "null", "nan", "NaN", "0", "-1")
    ids = set(frame.get_column(child))
    pairs = [
        (one, None if above is None or (above in missing and above not in ids) else above)
        for one, above in frame.select(child, parent).iter_rows()
        if one is not None
    ]
    name = _like(columns, _NAME, r"(name|title|label)$", (parent, child))
    names = dict(frame.select(child, name).drop_nulls().iter_rows()) if name else {}
    return _parents(pairs, file), names


def derivation(file: str) -> str | None:
    """Return how a hierarchy was made, if its JSON file says that it was derived and not given by a person."""
    value = _value(file) if suffix_of(file) == ".json" else None
    said = value.get("derived") if isinstance(value, Mapping) else None
    return said if isinstance(said, str) else None


def _like(columns: Mapping[str, str], usual: Sequence[str], pattern: str, taken: Sequence[str]) -> str | None:
    """Return the column with a usual name, else one whose name matches; `columns`: lower-case name -> name."""
    likely = [*(name for name in usual if name in columns), *(name for name in columns if re.search(pattern, name))]
    return next((columns[name] for name in likely if columns[name] not in taken), None)


def _edges_of_lines(file: str) -> list[tuple[str, str | None]] | None:
    """Return the edges of lines of a parent and its children, tabs or spaces between; None if there is a header.

    networkx writes edge lists so (``parent child {}``), and taxonomies of several datasets are (a parent, then all its
    children).
    """
    with _readable(file):
        lines = [line for line in open_stream(file, located(file)).text().splitlines() if line.strip()]
    lines = [re.sub(r"\s*\{.*\}$", "", line) for line in lines if not line.startswith("#")]
    mark = "\t" if any("\t" in line for line in lines) else "," if all("," in line for line in lines) else None
    rows = [[part.strip() for part in line.split(mark) if part.strip()] for line in lines]
    if not rows or any(len(row) < 2 for row in rows) or set(map(str.lower, rows[0])) & set(_PARENT):
        return None
    return [(child, row[0]) for row in rows for child in row[1:]]


def tree_of(value: Any, place: str) -> tuple[dict[str, str | None], dict[str, str]]:
    """Return what `read_tree` does, from a value of JSON or TOML."""
    edges: list[tuple[str, str | None]] = []
    links = value.get("links", value.get("edges")) if isinstance(value, Mapping) else None
    if isinstance(links, list) and all(
        isinstance(one, Mapping) and {"source", "target"} <= one.keys() for one in links
    ):
        edges = [(str(one["target"]), str(one["source"])) for one in links]
    elif isinstance(value, list) and all(isinstance(one, list) and len(one) == 2 for one in value):
        edges = [(str(child), str(parent)) for parent, child in value]
    elif isinstance(value, Mapping) and all(isinstance(one, str) or one is None for one in value.values()):
        edges = [(str(child), parent) for child, parent in value.items()]
    elif isinstance(value, Mapping):
        edges = list(_nested(value, None))
    else:
        raise DataError(f"{place} holds no hierarchy", 'write {"parent": ["child", ...], ...}')
    return _parents(edges, place), {}


def _nested(value: Any, parent: str | None) -> Iterable[tuple[str, str | None]]:
    """Yield (child, parent) of a mapping parent -> children, as deep as it goes."""
    if isinstance(value, Mapping):
        for name, below in value.items():
            yield str(name), parent
            yield from _nested(below, str(name))
    elif isinstance(value, list):
        for one in value:
            yield from _nested(one, parent)
    elif value is not None:
        yield str(value), parent


def _parents(edges: Iterable[tuple[str, str | None]], place: str) -> dict[str, str | None]:
    made: dict[str, str | None] = {}
    for child, parent in edges:
        if made.get(child) is not None and parent is not None and made[child] != parent:
            raise DataError(
                f"{place}: {quoted(child)} stands under {quoted(made[child])} and {quoted(parent)}",
                "give it one parent",
            )
        made[child] = parent if parent is not None else made.get(child)
        if parent is not None:
            made.setdefault(parent, None)
    return made


def _value(file: str) -> Any:
    with _readable(file):
        text = Path(located(file)).read_text(encoding="utf-8-sig")
        return json.loads(text) if suffix_of(file) == ".json" else tomllib.loads(text)


@contextmanager
def _readable(file: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}", "correct it") from error
