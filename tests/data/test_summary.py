"""The figures of a dataset against the same figures counted by hand."""

import json
import math
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import Dataset, summarize
from data.checks import Rows
from data.summary import entropy


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20).filter(any))
def test_entropy_is_shannons(counts):
    total = sum(counts)
    slow = sum(-count / total * math.log2(count / total) for count in counts if count)
    assert entropy(np.array(counts)) == pytest.approx(slow, abs=1e-12)


@pytest.fixture
def dataset(rows_of):
    return Dataset.from_rows(
        rows_of(
            ("one two", "a", "a1", "train"),
            ("one two", "a", "a1", "test"),
            ("three", "a", "a2", "train"),
            ("four  five six", "b", "b1", "train"),
            ("three", "b", "b1", "train"),
            ("é", "b", "b1", "val"),
        )
    )


def test_every_figure_of_a_small_dataset(dataset):
    summary = summarize(dataset, token_lengths=lambda texts: [len(text) * 2 for text in texts])
    assert (summary.name, summary.id, summary.rows) == ("made", dataset.id, 6)
    assert summary.splits == {"train": 4, "val": 1, "test": 1} and summary.out_of_scope == {}
    assert (summary.distinct, summary.duplicates) == (4, 2)
    assert (summary.contradictions, summary.in_two_splits) == (1, 1)
    coarse, fine = summary.levels
    assert (coarse.classes, fine.classes) == (2, 3)
    assert (coarse.branching.min, coarse.branching.max, coarse.branching.mean) == (1, 2, 1.5)
    assert fine.branching is None
    assert coarse.entropy == coarse.conditional_entropy == coarse.balance == 1
    expected = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3)) / 2
    assert fine.conditional_entropy == pytest.approx(expected)
    assert (fine.rows.min, fine.rows.median, fine.rows.max) == (1, 2, 3)
    assert (fine.train_rows.min, fine.train_rows.max) == (1, 2)
    assert (summary.lengths["words"].min, summary.lengths["words"].max) == (1, 3)
    assert (summary.lengths["characters"].min, summary.lengths["characters"].max) == (1, 14)
    assert summary.lengths["tokens"].max == 28
    assert "tokens" not in summarize(dataset).lengths


def test_it_goes_through_json_unchanged(dataset):
    plain = summarize(dataset).to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["duplicates"] == 2 and plain["levels"][0]["branching"]["mean"] == 1.5


@given(st.lists(st.sampled_from([("a", "a1"), ("a", "a2"), ("b", "b1")]), min_size=1, max_size=20))
def test_the_chain_rule_gives_the_conditional_entropy(pairs):
    rows = [("text", *pair, "train") for pair in pairs] + [("text", "a", "a1", "test")]
    frame = pl.DataFrame(rows, schema=["text", "coarse", "fine", "split"], orient="row")
    fine = summarize(Dataset.from_rows(Rows("made", frame, ("coarse", "fine")))).levels[1]
    counted = Counter(row[1:3] for row in rows)
    above = Counter(row[1] for row in rows)
    slow = sum(-count / len(rows) * math.log2(count / above[pair[0]]) for pair, count in counted.items())
    assert fine.conditional_entropy == pytest.approx(slow, abs=1e-12)
