"""Label cells into levels: a path in one cell, or a list.

A path is split unasked only if its mark can hardly mean anything else (``>``, ``>>``, ``::``, an arrow), or if every
row has the same depth and the parts form a tree with fewer parents than children: 'and/or', 'v1.2' and 'Food/Drink' are
labels, not paths. A node of a path is known by its whole path, so labels that stand under two parents are qualified
where needed. Where several labels of one text are meant, that is an error: this project takes one label per level.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import polars as pl

from data.errors import DataError, quoted
from data.files.records import Records, mean
from data.hierarchy import find_conflicts

_ARROWS = (" -> ", "->", " => ", "=>")
STRONG = (*_ARROWS, " >> ", ">>", " > ", ">", " » ", "»", " \u203a ", "\u203a", " → ", "→", "::", "|||")
"""Marks that are split unasked; one that ends in another stands before it."""

WEAK = (" / ", "/", "\\", ".", "|", ";", ":", "--")
"""Marks that are split unasked only if every row has the same depth and the parts form a tree."""

_SEVERAL = (";", "|", ",", " ")


def are_paths(cells: pl.Series) -> bool:
    """Whether a mark that is split unasked parts at least half of the labels."""
    return _strong_mark(cells.drop_nulls().unique(maintain_order=True)) is not None


def longest_label(cells: pl.Series) -> float:
    """Return the mean length of what one label is: the cell, of a path its longest part."""
    parts = cells.drop_nulls().str.replace_all("|".join(map(re.escape, STRONG)), "\n").str.split("\n")
    return mean(parts.list.eval(pl.element().str.len_chars()).list.max())


def is_list(cells: pl.Series) -> bool:
    """Whether every cell is written as a list of JSON or Python."""
    cells = cells.drop_nulls()
    return len(cells) > 0 and bool(cells.str.contains(r"^\s*\[.*\]\s*$").all())


def lists_of(cells: pl.Series, place: str) -> list[list[str] | None]:
    """Return the lists that the cells hold; null stays None.

    :raises DataError: for a cell that is no list of labels.
    """
    known = {cell: _parsed(cell, place) for cell in cells.drop_nulls().unique(maintain_order=True)}
    return [None if cell is None else known[cell] for cell in cells]


def _parsed(cell: str, place: str) -> list[str]:
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, list) and all(isinstance(one, str | int | float) or one is None for one in value):
            return [str(one) for one in value if one is not None]
    raise DataError(f"{place}: {quoted(cell)} is no list of labels", 'write it as ["a", "b"]')


def paths_of_lists(
    cells: pl.Series, place: str, first_label: bool, asked: bool
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Return the levels that lists hold as paths, or the `first_label` of each; and a note.

    :raises DataError: if they are no paths: then they are several labels of one text.
    """
    lists = lists_of(cells, place)
    first = pl.Series(cells.name, [one[0] if one else None for one in lists], dtype=pl.String)
    if first_label:
        return first.to_frame(), (f"the first label of each list in {quoted(cells.name)}",)
    if all(one is None or len(one) == 1 for one in lists):
        return split_paths(first, place, None, first_label=False)
    frame = _levels(cells.name, lists)
    if not asked and (fault := _no_tree(frame)):
        raise _several(cells.name, place, fault, "list")
    return _with_own_names(frame), (f"lists in column {quoted(cells.name)} are paths of {frame.width} levels",)


def with_single_labels(records: Records, columns: Sequence[str], first_label: bool) -> tuple[Records, str]:
    """Return `records` with the one label of each list in `columns`, or the `first_label`; and a note.

    :raises DataError: if a list holds several and the first is not asked for.
    """
    made = []
    for column in columns:
        lists = lists_of(records.frame.get_column(column), records.source)
        more = next((row for row, one in enumerate(lists) if one is not None and len(one) > 1), None)
        if more is not None and not first_label:
            cell = records.frame.get_column(column)[more]
            raise _several(column, records.source, f"{quoted(cell)} holds several", "list")
        made.append(pl.Series(column, [one[0] if one else None for one in lists], dtype=pl.String))
    kinds = {name: kind for name, kind in records.kinds.items() if name not in columns}
    which = f"lists in {'columns' if len(columns) > 1 else 'column'} {', '.join(map(quoted, columns))}"
    said = f"the first label of {which}" if first_label else f"{which} hold one label each"
    return replace(records, frame=records.frame.with_columns(made), kinds=kinds), said


def split_paths(
    cells: pl.Series, place: str, mark: str | None, first_label: bool
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Return the levels that the cells of one column hold, one column if they are no paths; and a note on it.

    `mark`: what separates a path, "none" for no path, None to find out. `first_label`: take the first of several.

    :raises DataError: if the cells hold several labels of one text, or `mark` is in none of them.
    """
    distinct = cells.drop_nulls().unique(maintain_order=True)
    if first_label:
        return _first_label(cells, distinct)
    cells, distinct = (_without_ids(one, mark) for one in (cells, distinct))
    if mark == "none":
        return cells.to_frame(), ()
    said = f"labels in column {quoted(cells.name)} are paths separated by"
    if mark is None and distinct.str.contains(r"^(<[^<>]+>)+$").all() and len(distinct):
        raise _several(cells.name, place, f"{quoted(distinct[0])} holds tags", "><")
    if certain := mark or _strong_mark(distinct):
        frame = _levels(cells.name, [_parts(cell, certain) for cell in cells])
        if frame.width > 1:
            frame, root = _without_root(frame)
            return _with_own_names(frame), (f"{said} {quoted(certain)}{root}",)
    if mark is not None:
        raise DataError(f"{place}: no label holds {quoted(mark)}", "leave --path-separator out, or name another")
    if found := _several_in(distinct):
        raise _several(cells.name, place, f"{quoted(found[0])} holds several", found[1])
    weak, likely = _weak_mark(cells.name, distinct)
    if weak:
        frame, root = _without_root(_levels(cells.name, [_parts(cell, weak) for cell in cells]))
        return _with_own_names(frame), (f"{said} {quoted(weak)}{root} (--path-separator none: they are no paths)",)
    if likely:
        note = f"labels in column {quoted(cells.name)} hold {quoted(likely)} and are not split"
        return cells.to_frame(), (f"{note} (--path-separator {likely!r}: they are paths)",)
    return cells.to_frame(), ()


def _strong_mark(distinct: pl.Series) -> str | None:
    """Return the mark that parts at least half of the labels; without its blanks, if others that lack these agree.

    Of ``a > b`` and ``a>c`` both are paths; of ``a > b`` and ``size >5`` the second is a label.
    """
    mark = next((one for one in STRONG if mean(distinct.str.contains(one, literal=True)) >= 0.5), None)
    if mark is None or mark == mark.strip():
        return mark
    spaced = distinct.str.contains(mark, literal=True)
    bare = distinct.filter(~spaced & distinct.str.contains(mark.strip(), literal=True))
    first = pl.col(distinct.name).str.split(mark.strip()).list.first().str.strip_chars()
    coarsest = distinct.filter(spaced).to_frame().select(first).to_series()
    agree = bare.to_frame().select(first.is_in(coarsest.unique().implode())).to_series()
    return mark.strip() if mean(agree) > 0.5 else mark


def _without_ids(cells: pl.Series, mark: str | None) -> pl.Series:
    """Take off the numbers in front of paths, as in ``1604 - Food > Bread``, if all have one."""
    numbered = mark is None and cells.drop_nulls().str.contains(r"^\d+ - .*>").all()
    return cells.str.replace(r"^\d+ - ", "") if numbered and len(cells) else cells


def _first_label(cells: pl.Series, distinct: pl.Series) -> tuple[pl.DataFrame, tuple[str, ...]]:
    if len(distinct) and distinct.str.contains(r"^(<[^<>]+>)+$").all():  # <one><two>
        cells = cells.str.strip_chars("<>").str.split("><").list.first()
        return cells.to_frame(), (f"the first of several labels in column {quoted(cells.name)}",)
    mark = next((one for one in _SEVERAL if distinct.str.contains(one, literal=True).any()), None)
    if mark is None:
        return cells.to_frame(), ()
    first = cells.str.split(mark).list.first().str.strip_chars()
    return first.to_frame(), (f"the first of several labels in column {quoted(cells.name)}",)


def _weak_mark(name: str, distinct: pl.Series) -> tuple[str | None, str | None]:
    """Return the mark that parts every label into a path of one depth, and one that parts most labels."""
    likely = None
    for mark in WEAK:
        lists = [_parts(cell, mark) for cell in distinct]
        share = sum(len(parts or ()) > 1 for parts in lists) / max(len(lists), 1)
        if share == 1 and _may_split(mark, lists) and _no_tree(_levels(name, lists)) is None:
            return mark, None
        likely = likely or (mark if share > 0.5 else None)
    return None, likely


def _parts(cell: str | None, mark: str) -> list[str] | None:
    if cell is None:
        return None
    parts = cell.strip().strip(mark.strip() or mark).split(mark) if mark in cell else [cell]
    return [part.strip() for part in parts]


def _may_split(mark: str, lists: Sequence[Sequence[str] | None]) -> bool:
    """Whether all rows have one depth and all parts are words; a dot also parts versions and numbers."""
    word = re.compile(r"[^\W\d_]{2}" if mark == "." else r"\w")
    depths = {len(parts) for parts in lists if parts}
    return len(depths) == 1 and all(word.search(part) for parts in lists for part in parts or ())


def _levels(name: str, lists: Sequence[Sequence[str] | None]) -> pl.DataFrame:
    depth = max((len(one) for one in lists if one), default=1)
    filled = [tuple(one or ()) + (None,) * (depth - len(one or ())) for one in lists]
    names = [f"{name}{level}" for level in range(depth)] if depth > 1 else [name]
    return pl.DataFrame(filled, schema=dict.fromkeys(names, pl.String), orient="row")


def _without_root(frame: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """Leave out a first level that holds one label above all others; also return what to say about it."""
    first = frame.to_series(0)
    if frame.width < 3 or first.n_unique() != 1 or frame.to_series(1).null_count():
        return frame, ""
    names = [f"{first.name[:-1]}{level}" for level in range(frame.width - 1)]
    return pl.DataFrame(dict(zip(names, frame.get_columns()[1:], strict=True))), (
        f", all below {quoted(first[0])}, which is no level"
    )


def _no_tree(frame: pl.DataFrame) -> str | None:
    """Return why the levels of `frame` are no tree with fewer parents than children, or None."""
    if frame.width == 1:
        return None
    if conflicts := find_conflicts(frame, frame.columns):
        one = conflicts[0]
        return f"{quoted(one.label)} stands after {quoted(one.parents[0])} and after {quoted(one.parents[1])}"
    sizes = [frame.get_column(column).drop_nulls().n_unique() for column in frame.columns]
    return None if all(coarse < fine for coarse, fine in pairwise(sizes)) else "it has not fewer parents than children"


def _with_own_names(frame: pl.DataFrame) -> pl.DataFrame:
    """Qualify the labels that stand under two parents: a node of a path is its whole path."""
    columns = frame.columns
    for coarse, fine in pairwise(columns):
        double = [one.label for one in find_conflicts(frame.select(coarse, fine), (coarse, fine))]
        qualified = pl.concat_str([pl.col(coarse), pl.col(fine)], separator="/")
        frame = frame.with_columns(pl.when(pl.col(fine).is_in(double)).then(qualified).otherwise(fine).alias(fine))
    return frame


def _several_in(distinct: pl.Series) -> tuple[str, str] | None:
    """Return a cell with several labels that other cells hold one by one, and their mark, if most such cells do."""
    cells: list[str] = distinct.to_list()
    known = set(cells)
    for mark in _SEVERAL:
        joint = [cell for cell in cells if mark in cell]
        several = [cell for cell in joint if all(part.strip() in known for part in cell.split(mark))]
        if joint and len(several) > len(joint) / 2:
            return several[0], mark
    return None


def _several(column: str, place: str, why: str, mark: str) -> DataError:
    return DataError(
        f"{place}: column {column} holds more than one label per text ({why}), which is out of scope",
        f"take the first: --label first; if they are paths: --path-separator {mark!r}",
    )
