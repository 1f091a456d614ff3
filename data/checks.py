"""Checks of rows of texts and labels: all faults at once, each with its rows and what to do.

One small function per check, all of them listed in `CHECKS`: `Dataset` refuses the first error, ``data check`` prints
all findings. Each is a polars expression or grouping over whole columns and takes a few milliseconds at 100,000 rows,
so a dataset is checked every time it is built. Checking where a value is used would find one fault per command, and
only after the backbone has run.

Rows are numbered from 1, the first row of data (below a CSV's header, blank lines counted), as a reader sees them.
"Same text" means equal byte for byte here, which is what makes two rows share one stored feature.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import polars as pl

from data.errors import DataError, counted, listed, quoted
from data.hierarchy import conflict_error, find_conflicts
from data.splits import SPLITS

LONGEST_TEXT = 1_000_000
"""Characters. No backbone reads more than some 32,768 tokens, about a tenth of this: a longer "text" is nearly always
the rest of a file behind an unclosed quotation mark, and embedding its first page would hide that."""

_TOO_HIGH = "so accuracy on test is too high"
SEEN = r"[^\s\p{Cc}\p{Cf}]"
"""A character that is seen: no white space, control or format character such as a zero-width space."""


@dataclass(frozen=True)
class Finding:
    """One error or warning: `severity`, the check's short name, one line of problem, one line of remedy.

    `rows` are the first few offending row numbers (1-based), `count` how many rows or classes are concerned.
    """

    severity: Literal["error", "warning"]
    check: str
    problem: str
    remedy: str
    count: int
    rows: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return asdict(self) | {"rows": list(self.rows)}


@dataclass(frozen=True)
class Rows:
    """Rows as read, not yet checked.

    `frame`: columns text, the levels, split, all String, nulls where a value is missing. `source`: the path or URL
    they came from, for messages. `numbers`: for each row the number its reader sees; None counts from 1.
    `made_splits`: the split column was made here, not read. `notes`: what the reader decided by itself, one line each.
    """

    name: str
    frame: pl.DataFrame
    levels: tuple[str, ...]
    source: str = ""
    numbers: pl.Series | None = None
    made_splits: bool = False
    out_of_scope: pl.DataFrame | None = None
    notes: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """How messages name it: the path or URL, else the name."""
        return self.source or self.name

    def number(self, positions: pl.Series) -> list[int]:
        """Return the numbers a reader sees for 0-based row `positions`."""
        if self.numbers is None:
            return [position + 1 for position in positions]
        return self.numbers.gather(positions).to_list()


def findings(rows: Rows) -> tuple[Finding, ...]:
    """Return all errors and warnings about `rows`, errors first, each in the order of `CHECKS`."""
    if fault := level_fault(rows.place, rows.levels):
        return (Finding("error", "levels", fault.problem, fault.remedy, len(rows.levels)),)
    if rows.frame.height == 0:
        return (Finding("error", "rows", f"{rows.place} has no rows", "give at least one row per split and class", 0),)
    found = [finding for check in CHECKS for finding in check(rows)]
    return tuple(sorted(found, key=lambda finding: finding.severity))


def raise_first(found: Sequence[Finding]) -> None:
    """Raise the first error among `found`, saying how many more there are.

    :raises DataError: if there is one.
    """
    errors = [finding for finding in found if finding.severity == "error"]
    if errors:
        left = counted(len(errors) - 1, "more error")
        more = f" (and {left}: `pipeline data check`, with the same file and options, says all)" if errors[1:] else ""
        counting = " (rows are counted from 1, below the header)" if errors[0].rows else ""
        raise DataError(errors[0].problem + more, errors[0].remedy + counting)


def level_fault(place: str, levels: Sequence[str]) -> DataError | None:
    """Return what keeps `levels` from being the levels of the dataset at `place`, or None."""
    if not levels:
        problem, remedy = "no level", "name the columns of labels, coarsest first: --levels COARSE,FINE"
    elif len(set(levels)) < len(levels):
        problem, remedy = f"levels {listed(levels)} name a column twice", "name each column once"
    elif reserved := sorted({"text", "split"} & set(levels)):
        problem, remedy = f"a level is called {reserved[0]}", "rename that column"
    else:
        return None
    return DataError(f"{place}: {problem}", remedy)


def _errors(rows: Rows, mask: pl.Series, check: str, problem: str, remedy: str) -> Iterator[Finding]:
    """Yield one error that names the rows of `mask`, if it marks any."""
    positions = mask.arg_true()
    count = len(positions)
    if count:
        numbers = rows.number(positions.head(10))
        places = ("row " if count == 1 else "rows ") + listed(numbers, count)
        yield Finding("error", check, f"{rows.place}, {places}: {problem}", remedy, count, tuple(numbers))


def _empty_texts(rows: Rows) -> Iterator[Finding]:
    """Texts of white space, control and format characters alone: nothing that a reader or a tokenizer sees."""
    mask = ~rows.frame.get_column("text").str.contains(SEEN).fill_null(False)
    return _errors(rows, mask, "empty-text", "the text is empty", "fill or remove it")


def _numbers_as_texts(rows: Rows) -> Iterator[Finding]:
    texts = rows.frame.get_column("text").drop_nulls()
    if texts.len() and texts.head(1_000).str.contains(r"^\s*[-+]?[\d.,]+\s*$").all():
        problem = f"{rows.place}: the texts are numbers, such as {quoted(texts[0])}"
        yield Finding("warning", "numbers", problem, "name the column of texts: --text COLUMN", texts.len())


def _long_texts(rows: Rows) -> Iterator[Finding]:
    lengths = rows.frame.get_column("text").str.len_chars().fill_null(0)
    mask = lengths > LONGEST_TEXT
    problem = f"a text of {max(lengths.filter(mask), default=0):,} characters, more than {LONGEST_TEXT:,}"
    remedy = "shorten or split it (no backbone reads so much), or close the quotation mark that opens it"
    return _errors(rows, mask, "long-text", problem, remedy)


def _missing_labels(rows: Rows) -> Iterator[Finding]:
    """A row needs a label of the first level, and no gap above its finest one; it may stop at any level."""
    for depth, level in enumerate(rows.levels):
        remedy = "fill it in, or add --drop-incomplete to leave such rows out"
        mask = rows.frame.get_column(level).is_null()
        if not depth and heads_groups(rows.frame.get_column(level)):
            remedy += f"; {FILL_DOWN}"
        problem = f"no label in column {level}"
        if depth:
            finer = pl.col(rows.levels[depth + 1 :])
            mask &= rows.frame.select(pl.any_horizontal(pl.lit(False), finer.is_not_null())).to_series()
            problem += ", but one in a finer column"
        yield from _errors(rows, mask, "missing-label", problem, remedy)


FILL_DOWN = (
    "where a label stands in the first row of its group alone, as merged cells of a spreadsheet are saved: --fill-down"
)


def heads_groups(column: pl.Series) -> bool:
    """Whether labels may stand in the first row of each group alone: the first has one, and most others have none."""
    return len(column) > 1 and column[0] is not None and 2 * column.null_count() >= len(column)


def _uneven_depth(rows: Rows) -> Iterator[Finding]:
    """Rows that stop above the finest level are counted; a level that no row of train or test has is an error."""
    for level in rows.levels[1:]:
        column = rows.frame.get_column(level)
        missing = column.null_count()
        if not missing:
            continue
        have = "has" if missing == 1 else "have"
        said = f"{missing:,} of {counted(len(column), 'row')} {have} no label of level {level}: used on coarser levels"
        remedy = "nothing, if no finer label is known; --drop-incomplete leaves such rows out"
        numbers = tuple(rows.number(column.is_null().arg_true().head(10)))
        yield Finding("warning", "uneven-depth", said, remedy, missing, numbers)
        labelled = set(rows.frame.get_column("split").filter(column.is_not_null()))
        for split in ("train", "test"):
            if split in rows.frame.get_column("split") and split not in labelled:
                problem = f"{rows.place}: no {split} row has a label of level {level}"
                yield Finding("error", "empty-level", problem, "leave that column out with --levels, or add labels", 0)


def _unknown_splits(rows: Rows) -> Iterator[Finding]:
    split = rows.frame.get_column("split")
    mask = ~split.is_in(SPLITS).fill_null(False)
    if mask.any():
        values = split.filter(mask).unique(maintain_order=True).head(3)
        shown = listed("none" if value is None else quoted(value) for value in values)
        remedy = (
            f"write {', '.join(SPLITS)} in column split, or remove the column to have splits made (--split none); "
            "of numbers say what they mean: --split 'split:0=train,1=test'"
        )
        yield from _errors(rows, mask, "unknown-split", f"split is {shown}", remedy)


def _two_parents(rows: Rows) -> Iterator[Finding]:
    conflicts = find_conflicts(rows.frame, rows.levels)
    if conflicts:
        firsts = sorted(row for conflict in conflicts for row in conflict.rows)
        numbers = rows.number(pl.Series(firsts, dtype=pl.UInt32))
        everyone = None if rows.numbers is None else rows.numbers.to_list()
        error = conflict_error(conflicts, rows.levels, everyone)
        problem, turned = f"{rows.place}: {error.problem}", rows.levels[::-1]
        finest_first = not find_conflicts(rows.frame, turned)
        remedy = error.remedy
        if not find_conflicts(rows.frame.with_columns(_folded(pl.col(level)) for level in rows.levels), rows.levels):
            remedy = "the parents differ only in case, spacing or spelling of one character or number: write them alike"
        elif finest_first:
            remedy = f"name the coarsest level first: --levels {shlex.quote(','.join(turned))}; or {error.remedy}"
        yield Finding("error", "two-parents", problem, remedy, len(conflicts), tuple(numbers[:10]))


def _empty_splits(rows: Rows) -> Iterator[Finding]:
    present = set(rows.frame.get_column("split").drop_nulls().unique())
    for split in SPLITS:
        if split in present:
            continue
        remedy = f"give some rows split {split}: in the column of splits, or in a file of their own (--{split})"
        if rows.made_splits:
            remedy = "give more rows, or a column split (train, val, test): the file is too small to be split by chance"
        if split == "val":
            problem = "no row has split val, so no best epoch can be picked by it"
            yield Finding("warning", "empty-split", problem, remedy, 0)
        else:
            yield Finding("error", "empty-split", f"{rows.place}: no row has split {split}", remedy, 0)


def _small_classes(rows: Rows) -> Iterator[Finding]:
    """Classes with one training row have no positive pair; classes that only test or val knows cannot be learned."""
    for level in rows.levels:
        counts = (
            rows.frame.select(pl.col(level).alias("class"), "split")
            .drop_nulls("class")
            .group_by("class")
            .agg(*((pl.col("split") == split).sum().alias(split) for split in SPLITS))
            .sort("class")
        )
        single = counts.filter(pl.col("train") == 1).get_column("class")
        said = "with a single training row: searched, but no pair can be trained"
        yield from _about_classes("one-training-row", level, single, said, "add rows, or merge classes")
        unseen = counts.filter((pl.col("train") == 0) & (pl.col("test") > 0)).get_column("class")
        said = "in test and never in train (every answer there counts as wrong)"
        remedy = (
            "add rows, or merge classes: the split is drawn by chance" if rows.made_splits else "move rows to train"
        )
        yield from _about_classes("unseen-class", level, unseen, said, f"{remedy}; or leave such classes out")


def _repeated_texts(rows: Rows) -> Iterator[Finding]:
    table = rows.frame.select("text", "split", pl.struct(rows.levels).alias("labels")).with_row_index("row")
    several = table.filter(pl.col("text").is_duplicated() & pl.col("text").is_not_null())
    if not several.height:
        return
    texts = several.group_by("text", maintain_order=True).agg(
        pl.col("labels").n_unique(), pl.col("split").n_unique().alias("splits"), pl.col("row").first()
    )
    for check, mask, said, remedy in (
        ("same-text", texts["labels"] == 1, "on several rows with the same labels", "keep one row of each"),
        ("contradiction", texts["labels"] > 1, "on several rows with different labels", "decide for one label"),
        ("two-splits", texts["splits"] > 1, f"in two splits, {_TOO_HIGH}", "keep each text in one split"),
    ):
        yield from _about_texts(rows, check, texts["row"].filter(mask), said, remedy)


def _alike_in_two_splits(rows: Rows) -> Iterator[Finding]:
    """Texts that most tokenizers read alike, in two splits; made splits keep such texts together."""
    if rows.made_splits:
        return
    table = rows.frame.select("text", "split", _folded(pl.col("text")).alias("folded")).with_row_index("row")
    several = table.filter(pl.col("folded").is_duplicated() & pl.col("text").is_unique())
    alike = several.group_by("folded", maintain_order=True).agg(pl.col("split").n_unique(), pl.col("row").first())
    found, said = alike.filter(pl.col("split") > 1).get_column("row"), "in two splits, but for case and spacing,"
    yield from _about_texts(rows, "alike-splits", found, f"{said} {_TOO_HIGH}", "keep such texts in one split")


def _about_texts(rows: Rows, check: str, firsts: pl.Series, said: str, remedy: str) -> Iterator[Finding]:
    """Yield one warning about texts, by the positions of their first rows, if there are any; it shows the first."""
    if len(firsts):
        numbers = tuple(rows.number(firsts.head(10)))
        shown = f"(row {numbers[0]}: {quoted(rows.frame.get_column('text')[firsts[0]])})"
        problem = f"{counted(len(firsts), 'text')} {said} {shown}"
        yield Finding("warning", check, problem, remedy, len(firsts), numbers)


def similar_labels(rows: Rows) -> Iterator[Finding]:
    """``Billing`` beside ``billing ``, 1 beside 1.0: two different classes that probably mean the same."""
    for level in rows.levels:
        labels = rows.frame.get_column(level).drop_nulls().unique().sort().to_frame("label")
        alike = labels.filter(_folded(pl.col("label")).is_duplicated()).get_column("label")
        said = "differ only in case, spacing or spelling of one character or number, and count as different"
        yield from _about_classes("similar-labels", level, alike, said, "write them alike, if they mean the same")


def _folded(column: pl.Expr) -> pl.Expr:
    """What is left of texts or labels without case, spacing, width, format characters, and 007 or 7.0 as 7."""
    folded = column.str.normalize("NFKC").str.to_lowercase().str.replace_all(r"\p{Cf}", "")
    return folded.str.replace_all(r"\s+", " ").str.strip_chars().str.replace(r"^(-?)0*(\d+?)(\.0+)?$", "$1$2")


def _about_classes(check: str, level: str, names: pl.Series, said: str, remedy: str) -> Iterator[Finding]:
    """Yield one warning that counts and shows classes of a level, if there are any."""
    if len(names):
        shown = f"({listed(map(quoted, names.head(5)), len(names))}) of level {level}"
        problem = f"{counted(len(names), 'class', 'classes')} {shown} {said}"
        yield Finding("warning", check, problem, remedy, len(names))


CHECKS: tuple[Callable[[Rows], Iterator[Finding]], ...] = (
    _empty_texts,
    _numbers_as_texts,
    _long_texts,
    _missing_labels,
    _uneven_depth,
    _unknown_splits,
    _two_parents,
    _empty_splits,
    _small_classes,
    _repeated_texts,
    _alike_in_two_splits,
    similar_labels,
)
"""Every check, in the order in which its findings are reported within a severity."""
