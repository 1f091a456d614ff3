"""Metrics against loops over single answers, and against scikit-learn where it has the same metric."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.evaluation import metrics

predictions = arrays(np.int64, (2, 30), elements=st.integers(0, 6))


class TestAccuracies:
    @settings(deadline=None)
    @given(pair=predictions)
    def test_are_those_of_scikit_learn(self, pair):
        from sklearn.metrics import accuracy_score, recall_score

        labels, predicted = pair
        both, guesses = labels[:, None], predicted[None, :, None]
        assert metrics.accuracy(both, guesses)[0, 0] == pytest.approx(accuracy_score(labels, predicted))
        query_index = np.unique(labels)
        expected = recall_score(labels, predicted, labels=query_index, average="macro", zero_division=0)
        assert metrics.macro(both, guesses)[0, 0] == pytest.approx(expected)
        shares, queries = metrics.by_class(labels, predicted == labels, 7)
        recalls = recall_score(labels, predicted, labels=query_index, average=None, zero_division=0)
        np.testing.assert_allclose(shares[query_index], recalls)
        assert np.isnan(np.delete(shares, query_index)).all()
        np.testing.assert_array_equal(queries, np.bincount(labels, minlength=7))

    def test_keep_prefixes_apart(self):
        labels = np.array([[0], [1], [1]])
        predicted = np.array([[[0], [1], [0]], [[1], [0], [0]]])
        np.testing.assert_allclose(metrics.accuracy(labels, predicted), [[2 / 3], [0]])
        np.testing.assert_allclose(metrics.macro(labels, predicted), [[0.75], [0]])


class TestSteering:
    def test_is_the_sum_of_its_terms(self):
        found = metrics.steerability(np.array([[0.9, 0.5], [0.1, 0.1], [0.85, 0.75]]))
        assert found.coarse_gain == pytest.approx(0.05)
        assert found.fine_gain == pytest.approx(0.25)
        assert found.total == pytest.approx(0.30)

    def test_takes_the_finest_of_several_levels(self):
        assert metrics.steerability(np.array([[0.9, 0.0, 0.5], [0.9, 1.0, 0.6]])).total == pytest.approx(0.1)

    @pytest.mark.parametrize("shape", [(1, 2), (4, 1)])
    def test_needs_two_levels_and_two_prefixes(self, shape):
        assert metrics.steerability(np.zeros(shape)) is None


def test_the_smallest_prefix_within_one_point():
    dims = (64, 128, 192, 256)
    assert metrics.smallest_prefix([0.80, 0.90, 0.905, 0.91], dims) == 128
    assert metrics.smallest_prefix([0.95, 0.90, 0.905, 0.91], dims) == 64
    assert metrics.smallest_prefix([0.80, 0.81, 0.82, 0.91], dims) == 256
    shortest, longest = np.mean([0.64, 0.87, 0.96, 0.88]), np.mean([0.88, 0.89, 0.97, 0.65])
    assert shortest < 0.8375 and longest == 0.8475  # binary fractions of means one point apart
    assert metrics.smallest_prefix([shortest, 0.8, 0.8, longest], dims) == 64
