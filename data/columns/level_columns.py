"""Which columns hold labels, coarsest first: numbered ones, else those that form a tree, if they do in one way only.

A column of labels repeats its values. Several are levels if each value of the finer one stands beside one value of the
coarser, and the coarser has fewer. Columns that part the rows in the same way (an id and its name) are one level. Two
different trees are an error that names both, because a wrong hierarchy would be believed by every later figure.

Labels may be spread over columns of 0 and 1, one per class, and are brought into one column of their names. Three such
columns or more are classes; fewer may be any answer of yes or no. A row with two ones has two labels, which is out of
scope unless the first is asked for.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from data.checks import FILL_DOWN, heads_groups
from data.columns.codes import digits_for
from data.columns.label_forms import longest_label
from data.errors import DataError, listed, quoted
from data.files.records import Records, mean
from data.hierarchy import find_conflicts
from data.splits import looks_like_split

_YES = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
_FEWEST = 3

NAME = "label"
"""Name of the column that is made."""


def indicators(frame: pl.DataFrame, columns: Sequence[str]) -> list[str]:
    """Return the columns that hold 0 and 1 alone, both of them, if they are three or more; else none."""
    found = [column for column in columns if not LEVEL.fullmatch(column) and _is_indicator(frame.get_column(column))]
    return found if len(found) >= _FEWEST else []


def _is_indicator(values: pl.Series) -> bool:
    if values.null_count() or not len(values) or values.head(200).n_unique() > 2:
        return False
    distinct = values.unique().str.to_lowercase()
    return len(distinct) == 2 and distinct.is_in(list(_YES)).all()


def from_indicators(records: Records, columns: Sequence[str], first_label: bool) -> tuple[Records, str]:
    """Return `records` with one column of labels in place of `columns`, and a note.

    :raises DataError: if a row has several ones and the `first_label` is not asked for, or none at all.
    """
    yes = records.frame.select(
        pl.col(column).str.to_lowercase().replace_strict(_YES, return_dtype=pl.Boolean) for column in columns
    )
    counts = yes.sum_horizontal()
    said = f"{len(columns)} columns of 0 and 1 ({listed(map(quoted, columns), len(columns))})"
    for wrong, problem, remedy in (
        (
            (counts > 1) & (not first_label),
            "more than one label per text, which is out of scope",
            "take the first: --label first",
        ),
        (counts == 0, "no label", "leave these rows out, or name other columns of labels: --levels NAME"),
    ):
        if wrong.any():
            rows = wrong.arg_true()
            places = listed(records.numbers.gather(rows.head(10)), len(rows))
            raise DataError(f"{records.source}, row {places}: {said} give {problem}", remedy)
    first = pl.coalesce(pl.when(pl.col(column)).then(pl.lit(column)) for column in columns)
    frame = records.frame.drop(columns).with_columns(yes.select(first.alias(NAME)).to_series())
    return replace(records, frame=frame), f"labels are the names of {said}"


MISSING = ("none", "null", "nan", "<na>", "na", "n/a")
"""How a missing finer label is written, lower case, and -1 among whole numbers; above a known label it is a class."""

LEVEL = re.compile(r"level\d+")
"""Names of the plain form, which are never doubted."""

_NUMBERED = re.compile(r"^(.*?)[ _.-]*(\d+)([^\d]*)$")
_LEVEL_WORDS = re.compile(
    r"level|lvl|l|label|labels|cat|category|categories|class|y|tier|depth|hierarchy|h|topic|c|label_level|labellevel"
)
LABEL_WORDS = re.compile(
    r"label|class|categor|topic|domain|intent|genre|group|section|department|area|field|type|tag|theme|subject|product"
)
"""What a name of a column of labels has in it."""

_OTHER_WORDS = re.compile(
    r"^(.*[ _.-])?(id|ids|uid|uuid|guid|index|idx|no|nr|url|uri|link|date|time|timestamp|year|month|day|created|"
    r"updated|lang|language|locale|country|author|user|userid|username|source|score|rating|stars|price|length|len|count|votes|"
    r"helpfulness|confidence|probability|channel|zip|zip[ _]?code|postcode)$|^date\b"
)
_CODE = r"^[A-Za-z]{0,3}[\d.-]*\d[\w./ -]*$"
_CODE_WORDS = re.compile(r"code|naics|isic|nace|hs|cpc|ipc|icd|sic|isco|unspsc|cpv|dewey|ddc")
_LONGEST = 100
"""Characters. A value that is longer on average is no label, nor is a path whose parts are."""


def find_levels(records: Records, taken: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the columns of labels, coarsest first, and notes on the guess; ``level0``, ``level1``, ... need none.

    `taken`: columns that hold texts or splits.

    :raises DataError: if there is none, or two readings give a tree.
    """
    columns = [column for column in records.frame.columns if column not in taken]
    numbered = _numbered(records, columns)
    if numbered and all(LEVEL.fullmatch(column) for column in numbered):
        return numbered, ()
    if numbered and not find_conflicts(records.frame.select(numbered), numbered):
        return numbered, (_said(numbered),)
    flags = indicators(records.frame, columns)
    columns = [column for column in columns if column not in flags]
    candidates = _candidates(records, columns)
    paths = records.frame.select(candidates).unique(maintain_order=True) if candidates else pl.DataFrame()
    candidates, same = _distinct(paths, candidates)
    chains = _readings(paths, candidates)
    deep = [chain for chain in chains if len(chain) > 1]
    if numbered and not any(set(chain).isdisjoint(numbered) for chain in deep):
        return numbered, (_said(numbered),)  # no tree, which the checks say with the rows
    found = deep or chains
    repeated = [chain for chain in deep if all(repeats(records.frame.get_column(column)) for column in chain)]
    if len(repeated) == 1 and not any(_named_as_labels(chain) for chain in deep if chain not in repeated):
        found = repeated
    if len(found) > 1:
        likely = [chain for chain in found if _named_as_labels(chain)]
        apart = deep and len(likely) == 1 and any(set(likely[0]).isdisjoint(chain) for chain in found)
        found = likely if len(likely) == 1 and not apart else found
    if not found and flags:
        return tuple(flags), ()
    if not found:
        raise _no_labels(records, taken, columns)
    if len(found) > 1:
        raise _several_trees(records, found[:3]) if deep else _no_tree(records, found)
    levels = tuple(found[0])
    known = [
        column
        for column in columns
        if LABEL_WORDS.search(column.lower())
        and not _OTHER_WORDS.match(column.lower())
        and not looks_like_split(column)
    ]
    left = {*levels, *(other for _, other in same)}
    rest = [column for column in dict.fromkeys((*candidates, *known)) if column not in left]
    notes = [_said(levels)]
    if rest:
        notes.append(f"not used: {listed(map(quoted, rest), len(rest))}")
    notes += [f"column {quoted(other)} means the same as {quoted(one)}" for one, other in same if one in levels]
    return levels, tuple(notes)


def _candidates(records: Records, columns: Sequence[str]) -> list[str]:
    """The columns whose values may be labels; fractions only where they number the classes within another's."""
    found = [column for column in columns if _may_be_labels(records, column)]
    found = found or [column for column in columns if _may_be_labels(records, column, ids=True)]
    several = [column for column in found if _holds_tags(records.frame.get_column(column))]
    if len(several) < len(found):
        found = [column for column in found if column not in several]
    frame = records.frame.select(found)
    return [column for column in found if not _are_fractions(frame.get_column(column)) or _numbers(frame, column)]


def _several_trees(records: Records, chains: Sequence[Sequence[str]]) -> DataError:
    return DataError(
        f"{records.source}: the labels may be {' or '.join(' > '.join(map(quoted, chain)) for chain in chains)}",
        f"say which: {' or '.join('--levels ' + shlex.quote(','.join(chain)) for chain in chains)}"
        "; or others, coarsest first: --levels COARSE,FINE",
    )


def _no_tree(records: Records, chains: Sequence[Sequence[str]]) -> DataError:
    """The error for columns that may each be labels, with what keeps the two of fewest classes from being a tree."""
    columns = sorted((one for (one,) in chains), key=lambda column: records.frame.get_column(column).n_unique())[:3]
    coarse, fine = columns[:2]
    known = records.frame.filter(~pl.col(fine).str.strip_chars().str.to_lowercase().is_in(MISSING))
    conflicts = find_conflicts(known, (coarse, fine))
    fault = ""
    if conflicts:
        beside = " and ".join(map(quoted, conflicts[0].parents[:2]))
        fault = f": {quoted(conflicts[0].label)} in {quoted(fine)} stands beside {beside} in {quoted(coarse)}"
    elif records.frame.select((pl.col(coarse).is_null() & pl.col(fine).is_not_null()).any()).item():
        fault = f": some rows have a {quoted(fine)} and no {quoted(coarse)}"
    return DataError(
        f"{records.source}: the labels may be {' or '.join(map(quoted, columns))}, which are no tree{fault}",
        f"say which, coarsest first: --levels {shlex.quote(','.join(columns))} (its error then names all such rows)"
        f"; or one of them: {' or '.join(f'--levels {shlex.quote(column)}' for column in columns)}",
    )


def _no_labels(records: Records, taken: Sequence[str], columns: Sequence[str]) -> DataError:
    """The error for records in which none of the `columns` can be a level."""
    if set(records.frame.columns) <= set(taken):
        return DataError(
            f"{records.source} holds texts and no labels, and a head is trained and scored by labels",
            "add a column per level, coarsest first: text,level0,level1 (if the first line is a row: --no-header)",
        )
    names = listed(map(quoted, records.frame.columns), records.frame.width)
    sparse = (one for one in records.frame.select(columns).iter_columns() if heads_groups(one))
    merged = any(one.drop_nulls().str.contains(r"\p{L}").all() for one in sparse)
    return DataError(
        f"{records.source} has no columns level0, level1, ... nor others that look like labels; it has {names}",
        "name the columns of labels: --levels COARSE,FINE"
        f"{_hint_of_codes(records, columns)} (if the first line is a row: --no-header)"
        f"{f'; {FILL_DOWN}' if merged else ''}",
    )


def _said(levels: Sequence[str]) -> str:
    return f"labels are in column{'s' if len(levels) > 1 else ''} {' > '.join(map(quoted, levels))} (if not: --levels)"


def _numbered(records: Records, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the one family of columns numbered from 0 or 1 whose name means levels, by number; or nothing."""
    families: dict[tuple[str, str], dict[int, str]] = {}
    for column in columns:
        if found := _NUMBERED.match(column.strip().lower()):
            families.setdefault((found[1], found[3]), {})[int(found[2])] = column
    usual = [
        (prefix, members)
        for (prefix, end), members in families.items()
        if _LEVEL_WORDS.fullmatch(prefix)
        or _LEVEL_WORDS.fullmatch(re.split(r"[ _.-]", prefix)[-1])
        or end.strip("_- ") in _LABEL_ENDS
    ]
    if len(usual) > 1:
        exact = [one for one in usual if one[0] == "level"]
        usual = exact or usual
    if len(usual) != 1:
        return ()
    prefix, members = usual[0]
    numbers = sorted(members)
    gapless = list(range(numbers[0], numbers[0] + len(numbers)))
    if prefix == "level" and (numbers[0] > 1 or numbers != gapless):
        raise DataError(
            f"{records.source} has levels {listed(members[number] for number in numbers)}: one is missing",
            "number them level0, level1, ... without a gap, or name them with --levels",
        )
    if numbers != gapless or numbers[0] > 1 or (len(numbers) == 1 and prefix != "level"):
        return ()
    return tuple(members[number] for number in numbers)


_LABEL_ENDS = {"label", "name", "class", "category"}


def _hint_of_codes(records: Records, columns: Sequence[str]) -> str:
    """Return how to say that a column holds codes, such as 0101.21, A00.1 or H04L, if one does."""
    able = [
        column
        for column in columns
        if mean(records.frame.get_column(column).drop_nulls().head(1_000).str.contains(_CODE)) > 0.9
        and not _OTHER_WORDS.match(column.lower().rstrip("."))
    ]
    if not able:
        return ""
    column = next((one for one in able if _CODE_WORDS.search(one.lower())), able[0])
    return f"; of codes: --code {shlex.quote(column)} --digits {digits_for(records.frame.get_column(column))}"


def _holds_tags(values: pl.Series) -> bool:
    """Whether values are written as ``<one><two>``: several labels per text."""
    return bool(values.drop_nulls().str.contains(r"^(<[^<>]+>)+$").all())


def _may_be_labels(records: Records, column: str, *, ids: bool = False) -> bool:
    """Whether a column's values repeat as labels do; with `ids` also one that is named as ids of labels are."""
    values = records.frame.get_column(column).drop_nulls()
    known = bool(LABEL_WORDS.search(column.lower()))
    other = looks_like_split(column) or (_OTHER_WORDS.match(column.lower()) and not (ids and known))
    if not len(values) or other or records.kind_of(column, "number", "truth value", "list"):
        return False
    classes = values.n_unique()
    if _are_fractions(values) and not (known and repeats(values)):
        return False
    if mean(values.str.len_chars()) > _LONGEST and longest_label(values) > _LONGEST:
        return False
    return classes > 1 and (repeats(values) or (known and classes < len(values)))


def _named_as_labels(columns: Sequence[str]) -> bool:
    return all(LABEL_WORDS.search(column.lower()) for column in columns)


def _are_fractions(values: pl.Series) -> bool:
    return mean(values.drop_nulls().head(500).str.contains(r"^-?\d*\.\d*[1-9]\d*$")) > 0.5


def _numbers(paths: pl.DataFrame, column: str) -> bool:
    """Whether fractions number classes within those of another column: 2.14 is the fourteenth of the second."""
    first = pl.col(column).str.extract(r"^(\d+)\.\d+$").alias("first")
    frames = (paths.select(first, pl.col(other).alias("other")) for other in paths.columns if other != column)
    return any(
        determines(one, "first", "other")
        and determines(one, "other", "first")
        and one.get_column("first").n_unique() > 1
        for one in frames
    )


def repeats(values: pl.Series) -> bool:
    """Whether values stand twice or more on average, as those of a level do; subjects of mails hardly do."""
    values = values.drop_nulls()
    return values.n_unique() <= len(values) / 2


def _distinct(paths: pl.DataFrame, columns: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Keep one of the columns that part the rows alike, names before numbers; also return (kept, left out) pairs."""
    kept: list[str] = []
    same: list[tuple[str, str]] = []
    by_words = sorted(columns, key=lambda column: mean(paths.get_column(column).str.contains(r"\p{L}")) < 0.5)
    for column in by_words:
        twin = next((one for one in kept if determines(paths, one, column) and determines(paths, column, one)), None)
        if twin is None:
            kept.append(column)
        else:
            same.append((twin, column))
    return [column for column in columns if column in kept], same


def determines(paths: pl.DataFrame, fine: str, coarse: str) -> bool:
    """Whether every value of `fine` stands beside one value of `coarse`, which is there wherever `fine` is."""
    pairs = paths.select(fine, coarse).drop_nulls(fine).unique()
    return pairs.height == pairs.get_column(fine).n_unique() and not pairs.get_column(coarse).null_count()


def _readings(paths: pl.DataFrame, columns: list[str]) -> list[list[str]]:
    """Return the chains of columns; if none has two, those without the words for no label, which any parent has."""
    chains = _chains(paths, columns)
    if not chains or max(map(len, chains)) > 1:
        return chains
    word = pl.all().str.strip_chars().str.to_lowercase().is_in(MISSING)
    return _chains(paths.with_columns(pl.when(~word).then(pl.all())).unique(), columns)


def _chains(paths: pl.DataFrame, columns: list[str]) -> list[list[str]]:
    """Return every chain of columns, coarsest first, that no other column can extend."""
    sizes = {column: paths.get_column(column).n_unique() for column in columns}
    finer = {
        coarse: [fine for fine in columns if sizes[coarse] < sizes[fine] and determines(paths, fine, coarse)]
        for coarse in columns
    }
    chains: list[list[str]] = []

    def extend(chain: list[str]) -> None:
        following = finer[chain[-1]]
        nearest = [one for one in following if not any(one in finer[other] for other in following)]
        for one in nearest:
            extend([*chain, one])
        if not nearest:
            chains.append(chain)

    for column in columns:
        if not any(column in following for following in finer.values()):
            extend([column])
    return chains
