"""Made splits depend on the text alone; a split column is understood as people write it."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.splits import SHARES, SPLITS, assign_splits, normalised, read_splits

TEXTS = st.lists(st.text(max_size=12), max_size=20)


@given(TEXTS, TEXTS, st.integers(0, 99))
def test_adding_rows_moves_no_other(before, after, seed):
    alone = assign_splits(before, seed)
    assert assign_splits(before + after, seed)[: len(before)] == alone
    assert assign_splits(after + before, seed)[len(after) :] == alone


@given(TEXTS.flatmap(lambda texts: st.tuples(st.just(texts), st.permutations(texts))))
def test_the_order_of_rows_does_not_matter(both):
    texts, shuffled = both
    assert dict(zip(texts, assign_splits(texts), strict=True)) == dict(
        zip(shuffled, assign_splits(shuffled), strict=True)
    )


@pytest.mark.parametrize("twin", ["How  are\tyou ", "HOW ARE YOU", "how are you\n", "ｈｏｗ are you"])
def test_texts_alike_but_for_case_width_and_spacing_share_a_split(twin):
    assert normalised(twin) == normalised("how are you")
    for seed in range(20):
        assert assign_splits([twin], seed) == assign_splits(["how are you"], seed)


def test_the_shares_are_80_10_10_and_another_seed_draws_anew():
    texts = [f"text {number}" for number in range(20_000)]
    splits = assign_splits(texts)
    for split, share in zip(SPLITS, SHARES, strict=True):
        assert abs(splits.count(split) / len(texts) - share) < 0.01
    assert assign_splits(texts, 1) != splits


def test_a_split_is_the_same_on_every_machine():
    assert assign_splits(list("abcdef")) == ["train", "val", "test", "test", "train", "train"]


def test_other_spellings_are_understood_and_other_words_left_to_be_named():
    column = pl.Series(
        ["train", " Val", "validation", "dev", "valid", "TEST", "testing", "training", "nowhere", "", None]
    )
    expected = ["train", "val", "val", "val", "val", "test", "test", "train", "nowhere", "", None]
    assert read_splits(column).to_list() == expected
