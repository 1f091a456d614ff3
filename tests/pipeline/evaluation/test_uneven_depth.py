"""Rows that lack their finer labels: scores under both protocols equal a loop that skips what is missing."""

import numpy as np
import pytest

from pipeline.evaluation.comparison import Entry, overall
from pipeline.evaluation.protocols import leave_one_out, sample_rows, score_embeddings
from pipeline.evaluation.scores import Identity
from tests.pipeline.evaluation.test_protocols import slow_label

LEVELS, DIM = 3, 8
IDENTITY = Identity(None, "d", "b", None, "m", None, None)


def uneven(count, seed):
    """Embeddings [n, 8] near their classes' centres, and label paths of 12 classes cut at random depths."""
    generator = np.random.default_rng(seed)
    finest = generator.integers(12, size=count)
    labels = np.stack([finest // 6, finest // 2, finest], axis=1)
    labels[np.arange(LEVELS) >= generator.integers(1, LEVELS + 1, size=count)[:, None]] = -1
    centres = np.random.default_rng(9).normal(size=(12, DIM))
    return (centres[finest] + generator.normal(size=(count, DIM))).astype(np.float32), labels


def plain_votes(query, gallery, labels):
    """Per prefix and level the label with most votes among the five nearest that have one, or -1."""
    return [slow_label(query, gallery, labels, dim, 5) for dim in (4, 8)]


def plain_score(asked):
    """Accuracy [J][L], macro accuracy and texts with a label, of (row, labels, votes) triples."""
    accuracy, macro, texts = np.zeros((2, LEVELS)), np.zeros((2, LEVELS)), []
    for level in range(LEVELS):
        known = [(row, labels[level], votes) for row, labels, votes in asked if labels[level] >= 0]
        texts.append(len({row for row, *_ in known}))
        for j in range(2):
            right = [(own, votes[j][level] == own) for _, own, votes in known]
            accuracy[j, level] = sum(hit for _, hit in right) / len(right)
            classes = sorted({own for own, _ in right})
            shares = [np.mean([hit for own, hit in right if own == one]) for one in classes]
            macro[j, level] = sum(shares) / len(shares)
    return accuracy, macro, texts


@pytest.mark.parametrize("seed", range(3))
def test_both_protocols_equal_a_loop_that_skips_missing_labels(seed):
    gallery, gallery_labels = uneven(60, seed)
    queries, query_labels = uneven(40, seed + 10)
    asked = [
        (row, query_labels[row], plain_votes(queries[row], gallery, gallery_labels)) for row in range(len(queries))
    ]
    left_out = []
    for rows in sample_rows(40, 25, 4):
        for row in rows:
            others = rows[rows != row]
            left_out.append((row, query_labels[row], plain_votes(queries[row], queries[others], query_labels[others])))
    for predictions, expected in (
        (score_embeddings(gallery, gallery_labels, queries, query_labels, scale_dim=4), asked),
        (leave_one_out(queries, query_labels, sample=25, samples=4, scale_dim=4), left_out),
    ):
        accuracy, macro, texts = plain_score(expected)
        score = predictions.score(IDENTITY)
        for j, prefix in enumerate(score.prefixes):
            assert [level.n for level in prefix.levels] == texts
            np.testing.assert_allclose([level.accuracy for level in prefix.levels], accuracy[j])
            np.testing.assert_allclose([level.macro for level in prefix.levels], macro[j])


def test_a_level_of_one_class_does_not_raise_the_mean_over_levels():
    (gallery, labels), (queries, own) = uneven(60, 0), uneven(40, 1)
    labels, own = labels.clip(0), own.clip(0)

    def mean(first, second):
        entries = [
            Entry("a", None, score_embeddings(gallery, first, queries, second, scale_dim=4)),
            Entry("b", None, score_embeddings(gallery[:, ::-1].copy(), first, queries, second, scale_dim=4)),
        ]
        return overall(entries)[0].mean_a

    root = np.zeros((len(labels), 1), np.int64)
    rooted = np.concatenate([root, labels], axis=1), np.concatenate([root[: len(own)], own], axis=1)
    assert mean(*rooted) == pytest.approx(mean(labels, own))
