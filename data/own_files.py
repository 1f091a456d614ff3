"""A user's own files into rows to be checked: texts, labels and splits found, labels brought into levels.

What is not said by the description is guessed, and every guess becomes a note, one line each, that says which option
would change it. A guess is made only where one reading alone gives a tree; `data.columns` has the rules. Reading a
million rows costs some seconds; guessing looks at whole columns and costs about as much again.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from data.checks import SEEN, Rows, level_fault
from data.columns.codes import levels_of_codes
from data.columns.label_forms import is_list, paths_of_lists, split_paths, with_single_labels
from data.columns.label_tree import ancestors, derivation, distinct_names, found_beside, named, read_tree
from data.columns.level_columns import LEVEL, MISSING, NAME, find_levels, from_indicators, indicators
from data.columns.merged_cells import filled_down
from data.columns.text_column import columns_meant, find_text, joined, with_texts_of_lists
from data.description import Description, described
from data.errors import DataError, counted, listed, quoted
from data.files.locate import suffix_of
from data.files.records import FileFormat, Records, spelled_as, without_header
from data.files.several import common_name, read_files
from data.hierarchy import qualified
from data.splits import FILE_SPLIT, assign_splits, read_splits, split_column, splits_of


def read_table(source: str, description: Description | None = None) -> Rows:
    """Return the rows of `source` with columns text, the levels and split, yet to be checked.

    :raises DataError: if a file cannot be read, or what a column holds is not certain.
    """
    source, known, notes = described(source, description or Description())
    sources = [source, *known.files]
    records = read_files(known.files_of_no_split(source), known.format, known.split_files)
    known = known.spelled_as(records.frame.columns)
    if known.header is None:
        records = without_header(records, known.columns)
    notes += records.notes
    if not records.frame.height:
        raise DataError(f"{records.source} has no rows", "give at least one row per split and class")
    text, said = _text(records, known)
    records, said_lists = with_texts_of_lists(records, text)
    texts = joined(records, text)
    notes += ((said,) if said else ()) + said_lists
    records, split, said_splits = split_column(records, known.split, text, known.levels or ())
    taken = (*text, *([split] if split else []))
    if known.fill_down:
        one = known.code or (known.label if known.label in records.frame.columns else None)
        records, said_filled = filled_down(records, known.levels or ((one,) if one else ()), taken)
        notes += said_filled
    levels, said_levels = _levels(records, taken, known)
    if levels.width == 1 and known.hierarchy is None and not known.names:
        said_levels += found_beside(source, levels.to_series())
    names = tuple(levels.columns)
    if fault := level_fault(source, names):
        raise fault
    frame, said_missing = _missing_below(pl.DataFrame({"text": texts, **levels.to_dict()}), names)
    frame, said_numbers = _numbers_alike(frame, names)
    numbers = records.numbers
    dropped: tuple[str, ...] = ()
    made = splits_of(records.frame.get_column(split)).alias("split") if split else None
    if known.drop_incomplete:
        frame, numbers, made, dropped = _complete(frame, names, numbers, made)
    if known.qualify_labels and len(names) > 1:
        frame = qualified(frame, names)
    elif known.qualify_labels:
        notes += ("--qualify-labels changes nothing: one level is read (of several: --levels COARSE,FINE)",)
    notes += (*said_levels, *said_missing, *said_numbers, *said_splits, *dropped)
    if made is None:
        made = pl.Series("split", assign_splits(value or "" for value in frame.get_column("text")), dtype=pl.String)
        notes += ("no column split: 80/10/10 by a seeded hash of each text",)
    else:
        made = read_splits(made)
    rows = frame.select("text", *names).with_columns(made)
    place = source if len(sources) == 1 else listed(sources, len(sources))
    return Rows(common_name(sources), rows, names, place, numbers, made_splits=split is None, notes=notes)


def read_texts(source: str | Path, text: str = "text", format: FileFormat | None = None) -> list[str]:
    """Return the texts of `source` alone, whatever other columns it has, in its order. `text`: the column, or several.

    The lines of a ``.txt`` file are its texts.

    :raises DataError: if it cannot be read, lacks the column, has no rows, a text is empty, or a row has fewer fields
        than columns.
    """
    source, format = str(source), format or FileFormat()
    if suffix_of(source) == ".txt" and format.separator is None:
        format = replace(format, separator="none")
    records = read_files([source], format)
    if not records.named and records.frame.width == 1:
        columns: tuple[str, ...] = (records.frame.columns[0],)
    else:
        columns = columns_meant(records, spelled_as(records.frame.columns, text.split(",")))
    _check_columns(records, columns)
    column = joined(records, columns)
    if not len(column):
        raise DataError(f"{source} has no rows", "give at least one text")
    empty = (~column.str.contains(SEEN).fill_null(False)).arg_true()
    if len(empty):
        places = listed(records.numbers.gather(empty.head(10)), len(empty))
        raise DataError(f"{source}, row {places}: the text is empty", "fill or remove it")
    if records.short:
        places = listed(records.short, len(records.short))
        raise DataError(f"{source}, row {places}: fewer fields than columns", "complete it, or quote its line breaks")
    return column.to_list()


def _meant(missing: Sequence[str], columns: Sequence[str]) -> str:
    """The question whether columns of nearly these names are meant; nothing where there are none."""
    near = [match for name in missing for match in difflib.get_close_matches(name, columns, n=1)]
    return f"did you mean {listed(map(quoted, near))}? " if near else ""


def _text(records: Records, known: Description) -> tuple[tuple[str, ...], str | None]:
    """Return the columns of texts, and a note if they were guessed.

    :raises DataError: if a column that is named is not there, or named twice, or no column or several may be the texts.
    """
    text = columns_meant(records, known.text) if known.text is not None else ()
    wanted = replace(known, text=text).columns
    _check_columns(records, wanted)
    if known.levels and (fault := level_fault(records.source, known.levels)):
        raise fault
    if known.label is not None and not known.first_label and known.label not in records.frame.columns:
        raise DataError(
            f"{records.source} has no column {quoted(known.label)} for --label",
            "name a column, or write --label first for the first of several labels",
        )
    named_once = [*wanted, *([known.split] if known.split else [])]
    if double := [column for column in named_once if named_once.count(column) > 1]:
        raise DataError(f"{records.source}: column {double[0]} is named for two things", "name each column once")
    return (text, None) if text else find_text(records, (*named_once, FILE_SPLIT))


def _check_columns(records: Records, wanted: Sequence[str]) -> None:
    """Refuse columns that are not there."""
    columns = records.frame.columns
    if missing := [column for column in wanted if column not in columns]:
        names = listed((quoted(column) for column in columns if column != FILE_SPLIT), len(columns))
        raise DataError(
            f"{records.source} has no column {listed(quoted(column) for column in missing)}",
            f"{_meant(missing, columns)}it has {names}: name yours with --text and --levels",
        )


def _levels(records: Records, taken: Sequence[str], known: Description) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Return the frame of levels, coarsest first, and notes on how they were found."""
    place, frame = records.source, records.frame
    if known.code is not None:
        levels, said = levels_of_codes(frame.get_column(known.code), known.digits, place)
        return named(levels, known.names), said
    notes: tuple[str, ...] = ()
    columns: tuple[str, ...] | None = known.levels
    if columns is None and known.label is not None and known.label in frame.columns:
        columns = (known.label,)
    tree = read_tree(known.hierarchy) if known.hierarchy is not None else None
    if columns is None and tree is not None:
        columns = _of_nodes(frame.drop([*taken, FILE_SPLIT], strict=False), tree)
    if columns is None:
        columns, notes = find_levels(records, (*taken, FILE_SPLIT))
    if columns and indicators(frame, columns) == list(columns):
        records, said_columns = from_indicators(records, columns, known.first_label)
        frame, columns, notes = records.frame, (NAME,), (*notes, said_columns)
    lists = [one for one in columns if records.kind_of(one, "number", "truth value") and not LEVEL.fullmatch(one)]
    if len(columns) > 1 and lists:
        records, said_lists = with_single_labels(records, lists, known.first_label)
        frame, notes = records.frame, (*notes, said_lists)
    _check_labels(records, columns)
    levels = frame.select(columns)
    if tree is not None or known.names:  # whose ids are whole: a missing value makes a file's column floats
        levels = levels.with_columns(pl.all().str.replace(r"^(-?\d+)\.0+$", "$1"))
    if tree is not None:
        levels, said = _by_tree(levels.to_series(levels.width - 1), tree, place, known)
        notes += said
    elif levels.width == 1:
        levels, said = _one_cell(levels.to_series(), place, known)
        notes += said
    return (named(levels, known.names) if known.names else levels), notes


def _check_labels(records: Records, columns: Sequence[str]) -> None:
    """Refuse columns of values that are no labels."""
    for column in columns:
        if kind := records.kind_of(column, "number", "truth value", "list"):
            raise DataError(
                f"{records.source}, row {kind.number:,}: {column} holds {kind.value}, not labels", "name other --levels"
            )
        if len(columns) > 1 and (kind := records.kind_of(column, "number", "truth value")):
            raise DataError(
                f"{records.source}, row {kind.number:,}: {column} is {quoted(kind.value)}, not a label",
                "write one string or number per label",
            )


def _of_nodes(frame: pl.DataFrame, tree: tuple[dict[str, str | None], dict[str, str]]) -> tuple[str, ...] | None:
    """Return the column with most values among those that hold nodes of the tree alone, by id or name; or None."""
    found = [
        column
        for column in frame.columns
        for nodes in (list(tree[0]), list(tree[1].values()))
        if (values := frame.get_column(column).drop_nulls()).n_unique() > 1 and values.is_in(nodes).all()
    ]
    return (max(found, key=lambda column: frame.get_column(column).n_unique()),) if found else None


def _by_tree(
    labels: pl.Series, tree: tuple[dict[str, str | None], dict[str, str]], place: str, known: Description
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Return the levels of labels by the hierarchy that `known` names, and notes; a derived level is called so."""
    parents, names = tree
    notes: tuple[str, ...] = ()
    if known.first_label:
        first, notes = _one_cell(labels, place, known)
        labels = first.to_series()
    if not labels.drop_nulls().is_in(list(parents)).all() and names:
        ids = {name: one for one, name in names.items()}
        labels = labels.replace(ids)
    levels = ancestors(labels, parents, place)
    assert known.hierarchy is not None
    if said := derivation(known.hierarchy):
        if levels.width == 2:
            levels.columns = ["derived", labels.name]
        notes += (f"level {levels.columns[0]} is derived: {said}; edit its names in {known.hierarchy}",)
    notes += (f"{levels.width} levels by the hierarchy given apart",)
    if names:
        levels = levels.with_columns(pl.all().replace(distinct_names(names)))
    return levels, notes


def _one_cell(cells: pl.Series, place: str, known: Description) -> tuple[pl.DataFrame, tuple[str, ...]]:
    mark = known.path_separator
    if mark == "list" or (mark is None and is_list(cells)):
        return paths_of_lists(cells, place, known.first_label, mark == "list")
    return split_paths(cells, place, mark, known.first_label)


def _missing_below(frame: pl.DataFrame, names: Sequence[str]) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Read blanks, and below the first level words such as None and nan, as no label, unless a finer one is known.

    A word that stays a class is said.
    """
    frame = frame.with_columns(
        pl.when(pl.col(name).str.strip_chars() != "").then(pl.col(name)).alias(name) for name in names
    )
    notes: list[str] = []
    for depth in reversed(range(len(names))):
        column, finer = pl.col(names[depth]), names[depth + 1 :]
        integers = frame.get_column(names[depth]).drop_nulls().str.contains(r"^-?\d+(\.0+)?$").all()
        word = column.str.strip_chars().str.to_lowercase().is_in([*MISSING, "-1", "-1.0"] if integers else MISSING)
        bare = pl.all_horizontal(pl.lit(depth > 0), pl.col(finer).is_null())
        for found, read_as in (
            (word & bare, "read as no label"),
            (word & ~bare, "a class of that name, though it may mean no label"),
        ):
            rows = frame.select(found.fill_null(False)).to_series()
            if rows.any():
                words = listed(map(quoted, frame.get_column(names[depth]).filter(rows).unique().sort().head(3)))
                have = "has" if rows.sum() == 1 else "have"
                said = f"{counted(int(rows.sum()), 'row')} {have} {words} in column {names[depth]}"
                notes.append(f"{said}: {read_as}")
        if depth:
            frame = frame.with_columns(pl.when(~(word & bare).fill_null(False)).then(column).alias(names[depth]))
    return frame, tuple(notes)


def _numbers_alike(frame: pl.DataFrame, names: Sequence[str]) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Read 1.0 as 1 in a level of whole numbers that has both: a missing value makes a file's column floats."""
    notes: list[str] = []
    for name in names:
        labels = frame.get_column(name).drop_nulls().unique()
        if not labels.str.contains(r"^-?(0|[1-9]\d*)(\.0+)?$").all():
            continue
        whole = pl.col(name).str.replace(r"\.0+$", "")
        if frame.select(whole).to_series().drop_nulls().n_unique() < len(labels):
            frame = frame.with_columns(whole)
            notes.append(f"whole numbers in column {name} are written with and without .0: read as the same")
    return frame, tuple(notes)


def _complete(
    frame: pl.DataFrame, names: Sequence[str], numbers: pl.Series, split: pl.Series | None
) -> tuple[pl.DataFrame, pl.Series, pl.Series | None, tuple[str, ...]]:
    """Leave out the rows that lack a label; say which."""
    whole = frame.select(pl.all_horizontal(pl.col(list(names)).is_not_null())).to_series()
    left_out = int((~whole).sum())
    which = listed(numbers.filter(~whole).head(10), left_out)
    notes = (f"{counted(left_out, 'row')} without a label left out: {which}",) if left_out else ()
    kept = None if split is None else split.filter(whole)
    return frame.filter(whole), numbers.filter(whole), kept, notes
