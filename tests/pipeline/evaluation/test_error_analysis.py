"""Errors by tree and by class, against loops over single answers."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from data.hierarchy import Hierarchy
from pipeline.evaluation.error_analysis import errors_of, per_class_frame, prefix_errors
from tests.pipeline.evaluation.predicted import identity, predicted

TREE = Hierarchy(
    ("domain", "intent"), (("money", "travel"), ("balance", "bill", "flight", "hotel")), (np.array([0, 0, 1, 1]),)
)
ANSWERS = predicted([[0.9, 0.6], [0.9, 0.7], [0.95, 0.8], [1.0, 1.0]])


def test_names_stand_for_numbers_and_counts_add_up():
    records = errors_of(ANSWERS, TREE)
    assert [record.dim for record in records] == [64, 128, 192, 256]
    first = records[0]
    assert (first.level, first.errors, first.queries) == (1, 160, 400)
    assert (first.within, first.across) == (160, 0)  # a wrong answer is a sibling here
    assert first.explained == (0.0, 1.0)
    assert sum(one.count for one in first.worst) == 160
    siblings = {("balance", "bill"), ("bill", "balance"), ("flight", "hotel"), ("hotel", "flight")}
    assert {(one.truth, one.predicted) for one in first.worst} == siblings
    assert records[-1].errors == 0
    assert records[-1].mean_distance is None


def test_every_class_of_a_level_and_of_those_above_has_its_accuracy():
    frame = per_class_frame([(identity(), ANSWERS)], TREE)
    assert frame.height == 4 * (2 + 2 + 4)
    labels = ANSWERS.labels[ANSWERS.query_index]
    for row in frame.iter_rows(named=True):
        level, by = TREE.names.index(row["level"]), TREE.names.index(row["by"])
        chosen = labels[:, by] == TREE.classes[by].index(row["class"])
        correct = ANSWERS.correct[ANSWERS.dims.index(row["dim"]), chosen, level]
        assert row["queries"] == chosen.sum()
        assert row["accuracy"] == pytest.approx(correct.mean())
    assert frame.filter(pl.col("level") == "domain")["by"].unique().to_list() == ["domain"]


PARENTS = (np.array([0, 0, 1]), np.array([0, 0, 1, 1, 2, 2, 2]))
DEEP = Hierarchy(("a", "b", "c"), (tuple("01"), tuple("012"), tuple("0123456")), PARENTS)


def ancestors(label):
    """A class of the finest level and what is above it, coarsest first."""
    middle = PARENTS[1][label]
    return [PARENTS[0][middle], middle, label]


class TestErrors:
    @settings(deadline=None)
    @given(pair=arrays(np.int64, (2, 30), elements=st.integers(0, 6)))
    def test_equal_a_loop_over_the_tree(self, pair):
        labels, predicted = pair
        report = prefix_errors(labels, predicted, DEEP, 64)
        distances, parted, chance = [], [], []
        for truth, guess in zip(labels, predicted, strict=True):
            if truth == guess:
                continue
            differ = [a != b for a, b in zip(ancestors(truth), ancestors(guess), strict=True)]
            distances.append(sum(differ))
            parted.append(differ.index(True))
            others = [other for other in range(7) if other != truth]
            chance.append(
                np.mean([sum(a != b for a, b in zip(ancestors(truth), ancestors(o), strict=True)) for o in others])
            )
        assert report.queries == len(labels)
        assert report.errors == len(distances) == report.within + report.across == sum(report.by_distance)
        assert report.within == sum(distance == 1 for distance in distances)
        assert report.by_distance == tuple(distances.count(d) for d in (1, 2, 3))
        if distances:
            assert report.mean_distance == pytest.approx(np.mean(distances))
            assert report.chance_distance == pytest.approx(np.mean(chance))
            assert report.explained == pytest.approx([parted.count(level) / len(parted) for level in range(3)])
            assert sum(report.explained) == pytest.approx(1)
        assert sum(confusion.count for confusion in report.worst) == report.errors
        assert list(report.worst) == sorted(report.worst, key=lambda c: (-c.count, c.truth, c.predicted))

    def test_of_the_coarsest_level_are_all_across(self):
        report = prefix_errors(np.array([0, 1]), np.array([1, 1]), Hierarchy(("one",), (("a", "b"),), ()), 64)
        assert (report.within, report.across, report.mean_distance, report.chance_distance) == (0, 1, 1.0, 1.0)
        assert report.explained == (1.0,)

    def test_where_there_are_none(self):
        report = prefix_errors(np.array([3, 4]), np.array([3, 4]), DEEP, 64)
        assert (report.errors, report.mean_distance, report.worst) == (0, None, ())
