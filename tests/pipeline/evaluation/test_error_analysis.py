"""Errors by tree and by class, against loops over single answers."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from data.hierarchy import Hierarchy
from pipeline.evaluation.error_analysis import errors_of, per_class_frame
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
