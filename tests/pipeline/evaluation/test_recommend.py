"""What does not differ significantly from the best shares its place, wherever it stands in the list."""

from __future__ import annotations

import pytest

from pipeline.evaluation.recommend import Figure, advice, level_with_best
from pipeline.retrieval.recommend import sentences

LEVELS = ("domain", "intent")


def score(method, accuracies, half=0.01, seed=1, queries=100):
    """A score record: accuracies [J, L], each with an interval of `half` to both sides."""
    return {
        "method": method,
        "head": "paper",
        "layer": 6,
        "hyperparameters": {},
        "seed": seed,
        "queries": queries,
        "prefixes": [
            {
                "dim": 64 * (j + 1),
                "levels": [{"accuracy": value, "ci95": [value - half, value + half]} for value in row],
            }
            for j, row in enumerate(accuracies)
        ],
    }


@pytest.mark.parametrize("order", [("v5", "mrl"), ("mrl", "v5")])
def test_equal_to_the_printed_digit_is_level_in_any_order(order):
    scores = [score(name, [[0.9, 0.7], [0.95, 0.9]], half=0.0) for name in order]
    scores[1]["prefixes"][0]["levels"][0]["accuracy"] += 0.0004
    choice, _, shortest = advice(scores, LEVELS)
    assert "are level" in choice
    assert "take" not in choice
    assert shortest.count("are level (0.0 points") == 2


def test_a_few_texts_are_said_to_be_too_few():
    (said,) = advice([score("v5", [[1.0, 0.7]], queries=3), score("mrl", [[1.0, 0.7]], queries=3)], LEVELS)
    assert said.startswith("3 test texts too few to compare methods")


def test_what_the_intervals_do_not_tell_apart_is_level_and_what_they_do_is_not():
    near = [score("v5", [[0.9, 0.7]]), score("mrl", [[0.91, 0.71]]), score("joint", [[0.8, 0.5]])]
    choice = advice(near, LEVELS)[0]
    assert "mrl and v5 are level" in choice
    assert "joint 65.0%" in choice
    far = [score("v5", [[0.9, 0.7]]), score("mrl", [[0.95, 0.75]])]
    assert "take mrl, ahead in 2 of 2 pairs" in advice(far, LEVELS)[0]
    tied = [score("v5", [[0.9, 0.7]]), score("mrl", [[0.9, 0.75]])]
    assert "take mrl, ahead in 1 of 2 pairs" in advice(tied, LEVELS)[0]


def test_the_best_come_first_and_an_interval_counts_towards_the_other_side_alone():
    figures = {"a": Figure(0.90, 0.80, 0.901), "b": Figure(0.95, 0.949, 1.0), "c": Figure(0.94, 0.9, 0.95)}
    assert level_with_best(figures) == ["b", "c"]


def retrieved(**precision):
    """What `retrieve` keeps, of methods with these precisions on the finest level; recall says the opposite."""
    rows = [
        {
            "method": name, "documents": 1000, "filter_dim": 64, "candidates": 10, "flops_per_query": 1,
            "recall_at_10": 1 - value, "recall_ci95": [0.99 - value, 1.01 - value],
            "precision_at_10": [0.9, value], "precision_ci95": [[0.9, 0.9], [value - 0.01, value + 0.01]],
        }
        for name, value in precision.items()
    ]  # fmt: skip
    single = [{**row, "filter_dim": 256, "flops_per_query": 4} for row in rows]
    return {"corpora": [{"documents": 1000}], "levels": LEVELS, "results": rows, "single_stage": single}


def test_a_search_that_is_level_by_labels_is_not_called_ahead():
    assert "by labels mrl and v5 are level" in sentences(retrieved(v5=0.700, mrl=0.705, joint=0.6))[0]
    apart = sentences(retrieved(v5=0.7, mrl=0.8))[0]
    assert "by labels mrl is ahead (intent precision@10 mrl 80.0%)" in apart
    assert "v5 is ahead (recall@10 v5 30.0%; by labels v5 70.0%)" in apart
