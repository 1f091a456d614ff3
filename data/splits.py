"""Train, val and test: the values of a split column, and splits made where there is no such column.

A made split is a seeded hash of the normalised text, so a row's split depends on that row alone: adding, removing or
reordering rows moves no other, and two rows that differ in case, width or spacing always share a split (no leak from
train into test). The price is that the shares are 80/10/10 only on average, and not within a class: a stratified
draw would be exact but would move rows whenever one is added, which makes every later comparison suspect.

A split column is found under any usual name and spelling; a likely one that is not used is said.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace

import polars as pl

from data.errors import DataError, quoted
from data.files.records import Records

SPLITS = ("train", "val", "test")
"""The three splits, in the order in which they are reported."""

SPELLINGS = {
    **dict.fromkeys(("training", "trn", "tr"), "train"),
    **dict.fromkeys(("validation", "valid", "validate", "dev", "develop", "development", "eval", "evaluation"), "val"),
    **dict.fromkeys(("testing", "tst", "heldout", "held-out", "held_out", "holdout"), "test"),
}
"""Other spellings in use, and which split they mean."""

SHARES = (0.8, 0.1, 0.1)
"""Shares of train, val and test in a made split."""


def normalised(text: str) -> str:
    """Return the form of `text` that decides its split: NFKC, case folded, runs of white space as one space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def assign_splits(texts: Iterable[str], seed: int = 42) -> list[str]:
    """Return the split of each text, a function of `seed` and the normalised text alone."""
    train, val, _ = SHARES
    places = (unit_hash(normalised(text), seed) for text in texts)
    return ["train" if place < train else "val" if place < train + val else "test" for place in places]


def read_splits(column: pl.Series) -> pl.Series:
    """Return a split column in the three words: case and outer white space dropped, other spellings translated.

    Values that mean no split are left as they are, for the checks to report; missing ones stay null.
    """
    words = column.str.strip_chars().str.to_lowercase()
    words = words.replace(list(SPELLINGS), list(SPELLINGS.values()))
    known = words.is_in(SPLITS).fill_null(False)
    return words.zip_with(known, column)


def split_of_word(word: str) -> str | None:
    """Return the split that a word means, or None."""
    word = word.strip().lower()
    return word if word in SPLITS else SPELLINGS.get(word)


def unit_hash(text: str, seed: int) -> float:
    """Return a number in [0, 1) that depends on `text` and `seed` alone, on every machine: 53 bits of BLAKE2b."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, key=str(seed).encode())
    return (int.from_bytes(digest.digest(), "big") >> 11) / 2**53


NAMES = re.compile(r"split|partition|set|subset|fold|data_split|dataset_split|part|usage|phase|splits")
"""Usual names of a split column, lower case."""

FILE_SPLIT = "\0split"
"""Name of the column with the split that a record's file says."""

_FLAG = re.compile(r"^(?:is|in|for)[ _.-]?(\w+)$")
_TRUTH = {"0": False, "1": True, "false": False, "true": True, "no": False, "yes": True, "0.0": False, "1.0": True}


def looks_like_split(column: str) -> bool:
    """Whether a column's name says that it holds splits."""
    name = column.strip().lower()
    return bool(NAMES.fullmatch(name)) or bool(re.match(r"split|.*[ _.-](split|fold|partition)$", name))


def split_column(
    records: Records, given: str | None, text: Sequence[str], levels: Sequence[str]
) -> tuple[Records, str | None, tuple[str, ...]]:
    """Return the records with the column of their splits, its name, None where splits are to be made, and notes.

    :param given: what was said of it: a column, "none", or ``COLUMN:0=train,1=test``.
    :param text: the columns of texts.
    :param levels: the columns of labels, where they were named.
    :raises DataError: if there is no such column, or several columns may be it.
    """
    frame = records.frame
    if FILE_SPLIT in frame.columns and given is None:
        return records, FILE_SPLIT, ()
    if "split" in text:
        raise DataError(f"{records.source}: column split is named for two things", "name each column once")
    if given == "none":
        return records, None, ()
    if given is not None and given not in frame.columns:
        column, made = _with_meanings(records, given)
        return replace(records, frame=frame.with_columns(made)), column, ()
    if given is not None or ("split" in frame.columns and "split" not in levels):
        return records, given or "split", ()
    return records, *_guessed(records, (*text, *levels, FILE_SPLIT))


def _guessed(records: Records, taken: Sequence[str]) -> tuple[str | None, tuple[str, ...]]:
    """Return the split column or None, and notes: which was guessed, or which looks like one and is not used.

    `taken`: columns that hold texts or labels.

    :raises DataError: if several columns may be it.
    """
    frame = records.frame
    free = [column for column in frame.columns if column not in taken]
    usable = [column for column in free if _all_splits(frame.get_column(column))]
    named = [column for column in usable if NAMES.fullmatch(column.strip().lower())]
    usable = named or usable
    if len(usable) > 1:
        raise DataError(
            f"{records.source}: the splits may be in {' or in '.join(map(quoted, usable))}",
            f"say which: {' or '.join(f'--split {shlex.quote(column)}' for column in usable)}",
        )
    if usable:
        return usable[0], (f"splits are in column {quoted(usable[0])} (if not: --split)",)
    likely = [column for column in free if looks_like_split(column) or _of_flag(frame.get_column(column))]
    return None, tuple(
        f"column {quoted(column)} looks like a split and is not used: its values are no splits "
        f"(--split {shlex.quote(f'{column}:{_example(frame.get_column(column))}')})"
        for column in likely
    )


def _example(column: pl.Series) -> str:
    """Return how the meaning of the values of `column` is written, by its first values."""
    values = column.drop_nulls().unique().sort().head(3).to_list()
    return ",".join(f"{value}={split}" for value, split in zip(values, ("train", "val", "test"), strict=False))


def _with_meanings(records: Records, given: str) -> tuple[str, pl.Series]:
    """Return the column that ``COLUMN:0=train,1=test`` names, and its values in the words that it gives them.

    :raises DataError: if there is no such column, or a part gives no meaning.
    """
    name, _, said = given.rpartition(":")
    if name not in records.frame.columns:
        columns = ", ".join(map(quoted, records.frame.columns))
        raise DataError(
            f"{records.source} has no column {quoted(name or given)} for --split",
            f"name one of {columns}; or --split none, for splits that are made here",
        )
    meanings = dict(part.partition("=")[::2] for part in said.split(","))
    if wrong := [word for word in meanings.values() if split_of_word(word) is None]:
        raise DataError(f"--split: {quoted(wrong[0])} is no split", f"write --split '{name}:0=train,1=val,2=test'")
    column = records.frame.get_column(name)
    return name, column.str.strip_chars().replace({value.strip(): word for value, word in meanings.items()})


def _all_splits(column: pl.Series) -> bool:
    """Whether every value means a split, and both training and other rows are there."""
    if column.null_count() or column.n_unique() > 12:
        return False
    found = {split_of_word(word) for word in splits_of(column).unique()}
    return None not in found and "train" in found and len(found) > 1


def _of_flag(column: pl.Series) -> str | None:
    """Return the split of the rows where a column such as ``is_test`` says yes, or None."""
    found = _FLAG.match(column.name.strip().lower())
    return split_of_word(found[1]) if found else None


def splits_of(column: pl.Series) -> pl.Series:
    """Return the splits that `column` says: its values, or for one such as ``is_test`` test and train."""
    named = _of_flag(column)
    words = column.str.strip_chars().str.to_lowercase()
    if named is None or not words.is_in(list(_TRUTH)).all():
        return column
    other = "test" if named == "train" else "train"
    yes = words.replace_strict(_TRUTH, default=False, return_dtype=pl.Boolean)
    return pl.Series(column.name, [named if one else other for one in yes], dtype=pl.String)
