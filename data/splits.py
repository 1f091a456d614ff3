"""Train, val and test: the values of a split column, and splits made where there is no such column.

A made split is a seeded hash of the normalised text, so a row's split depends on that row alone: adding, removing or
reordering rows moves no other, and two rows that differ in case, width or spacing always share a split (no leak from
train into test). The price is that the shares are 80/10/10 only on average, and not within a class: a stratified
draw would be exact but would move rows whenever one is added, which makes every later comparison suspect.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable

import polars as pl

SPLITS = ("train", "val", "test")
"""The three splits, in the order in which they are reported."""

SPELLINGS = {
    "training": "train",
    "trn": "train",
    "tr": "train",
    "validation": "val",
    "valid": "val",
    "validate": "val",
    "dev": "val",
    "develop": "val",
    "development": "val",
    "eval": "val",
    "evaluation": "val",
    "testing": "test",
    "tst": "test",
    "heldout": "test",
    "held-out": "test",
    "held_out": "test",
    "holdout": "test",
}
"""Other spellings in use, and which split they mean."""

SHARES = (0.8, 0.1, 0.1)
"""Shares of train, val and test in a made split."""


def normalised(text: str) -> str:
    """Return the form of `text` that decides its split: NFKC, case folded, runs of white space as one space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def assign_splits(texts: Iterable[str], seed: int = 42) -> list[str]:
    """Return the split of each text, a function of `seed` and the normalised text alone."""
    return [_split_of(normalised(text), seed) for text in texts]


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


def _split_of(text: str, seed: int) -> str:
    place = unit_hash(text, seed)
    if place < SHARES[0]:
        return "train"
    return "val" if place < SHARES[0] + SHARES[1] else "test"
