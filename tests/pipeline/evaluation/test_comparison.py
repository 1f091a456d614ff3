"""Comparisons of methods against scipy, statsmodels and loops over seeds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from pipeline.errors import PipelineError
from pipeline.evaluation.comparison import Entry, compare
from pipeline.evaluation.ranking import points
from tests.pipeline.evaluation.predicted import DIMS, predicted


def entries(methods, seeds=(1, 2, 3, 4, 5), **more):
    """A run a method and seed, about the accuracies [J, L] of the method, jittered by method and seed."""
    made = []
    for place, (method, shares) in enumerate(methods.items()):
        for seed in seeds:
            jitter = np.random.default_rng([place, seed]).uniform(-0.02, 0.02, np.shape(shares))
            made.append(Entry(method, seed, predicted(np.clip(shares + jitter, 0, 1), seed=seed, **more)))
    return made


THREE = {
    "v5": np.array([[0.90, 0.70], [0.90, 0.75], [0.90, 0.78], [0.90, 0.80]]),
    "mrl": np.array([[0.80, 0.85], [0.85, 0.85], [0.85, 0.85], [0.90, 0.85]]),
    "joint": np.array([[0.90, 0.85], [0.90, 0.85], [0.90, 0.85], [0.90, 0.85]]),
}


class TestRows:
    def test_are_paired_t_tests_of_scipy_with_the_holm_of_statsmodels(self):
        from statsmodels.stats.multitest import multipletests

        given = entries(THREE)
        rows = compare(given)
        accuracy = {(entry.method, entry.seed): entry.predictions.accuracy for entry in given}
        for row in (row for row in rows if row.metric == "accuracy"):
            a, b = (
                np.array([accuracy[name, seed][row.prefix - 1, row.level] for seed in (1, 2, 3, 4, 5)])
                for name in (row.a, row.b)
            )
            expected = scipy.stats.ttest_rel(a, b)
            assert row.n == 5
            assert row.dim == DIMS[row.prefix - 1]
            assert row.mean_a == pytest.approx(a.mean())
            assert row.mean_b == pytest.approx(b.mean())
            assert row.mean_difference == pytest.approx((a - b).mean())
            assert row.p == pytest.approx(expected.pvalue)
            assert row.ci95 == pytest.approx(tuple(expected.confidence_interval(0.95)))
            assert row.cohens_d == pytest.approx((a - b).mean() / (a - b).std(ddof=1))
            assert row.texts_ci95[0] <= row.mean_difference <= row.texts_ci95[1]
        adjusted = multipletests([row.p for row in rows], method="holm")[1]
        np.testing.assert_allclose([row.p_holm for row in rows], adjusted)

    def test_cover_every_pair_prefix_and_level_and_the_steering(self):
        rows = compare(entries(THREE, seeds=(1, 2)))
        pairs = {("v5", "mrl"), ("v5", "joint"), ("mrl", "joint")}
        assert {(row.a, row.b) for row in rows} == pairs
        cells = {(row.prefix, row.level) for row in rows if row.metric == "accuracy"}
        assert cells == {(prefix, level) for prefix in (1, 2, 3, 4) for level in (0, 1)}
        assert len(rows) == len(pairs) * (len(cells) + 3)
        steering = {row.metric: row for row in rows if (row.a, row.b) == ("v5", "mrl") and row.prefix is None}
        total = steering["coarse_gain"].mean_difference + steering["fine_gain"].mean_difference
        assert steering["steerability"].mean_difference == pytest.approx(total)

    def test_pair_only_the_seeds_that_both_have(self):
        given = entries({"v5": THREE["v5"]}, seeds=(1, 2, 3)) + entries({"mrl": THREE["mrl"]}, seeds=(2, 3, 4))
        assert {row.n for row in compare(given)} == {2}

    def test_of_one_seed_have_texts_but_no_test(self):
        row = compare(entries(THREE, seeds=(7,)))[0]
        assert (row.ci95, row.p, row.p_holm, row.cohens_d) == (None, None, None, None)
        assert "too few seeds to test" in row.sentence()

    @pytest.mark.parametrize("turned", [1, -1])
    def test_of_one_seed_have_the_sign_of_the_table(self, turned):
        """The sentence said +3.4 where the row beside it said -3.4."""
        given = entries({"v5": THREE["v5"], "mrl": THREE["v5"] - 0.01}, seeds=(7,))[::turned]
        row = next(row for row in compare(given) if row.mean_difference and row.level is not None)
        assert row.sentence().startswith("no significant difference")
        assert f": {row.mean_difference * 100:+.1f} points [" in row.sentence()


class TestSentences:
    def test_claim_no_win_from_seeds_that_differ_alike(self):
        """Few texts make the differences of two seeds equal by chance, which is no certainty."""
        shares = {"v5": np.array([[0.5, 0.5]] * 4), "mrl": np.array([[0.5, 0.75]] * 4)}
        given = [
            Entry(name, seed, predicted(at, texts=12, seed=seed)) for name, at in shares.items() for seed in (1, 2)
        ]
        row = next(row for row in compare(given) if (row.level, row.prefix) == (1, 1))
        assert (row.n, row.p, row.ci95) == (2, None, None)
        assert "beats" not in row.sentence()
        assert "too few seeds to test" in row.sentence()

    def test_claim_no_win_that_other_texts_may_undo(self):
        """Two of forty texts are the whole difference, the same two whatever the seed."""
        given = []
        for seed in (1, 2, 3, 4, 5):
            one = predicted(np.ones((4, 2)), texts=40, seed=seed)
            other = one.predicted.copy()
            other[:, [3, 7, *([11] if seed == 1 else [])], 1] ^= 1
            given += [Entry("v5", seed, one), Entry("mrl", seed, replace(one, predicted=other))]
        row = next(row for row in compare(given) if (row.level, row.prefix) == (1, 1))
        assert row.p_holm < 0.05
        assert row.leader == 0
        assert row.sentence().startswith("no significant difference between v5 and mrl on level 1 at 64 dims: +5.5 ")
        assert "over seeds alone p=" in row.sentence()

    def test_name_the_winner_whichever_side_it_stands_on(self):
        rows = compare(entries(THREE, texts=4000))
        found = {(row.a, row.b, row.dim, row.level): row.sentence(("domain", "intent")) for row in rows if row.dim}
        assert found["v5", "mrl", 64, 0].startswith("v5 beats mrl on domain at 64 dims by ")
        assert found["v5", "mrl", 64, 1].startswith("mrl beats v5 on intent at 64 dims by ")
        assert "n=5" in found["v5", "mrl", 64, 1]
        assert "no significant difference between mrl and joint on intent at 256 dims" in found["mrl", "joint", 256, 1]

    def test_say_levels_by_number_without_names(self):
        assert "on level 0 at 64 dims" in compare(entries(THREE))[0].sentence()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ([], "nothing to compare"),
        (entries({"v5": THREE["v5"]}), "1 method"),
        (entries({"v5": THREE["v5"]}, seeds=(1,)) + entries({"mrl": THREE["mrl"]}, seeds=(2,)), "share no seed"),
        (entries(THREE, seeds=(1,)) * 2, "two runs with seed 1"),
        (entries({"v5": THREE["v5"]}) + entries({"mrl": THREE["mrl"]}, protocol="leave-one-out"), "was not asked"),
        (entries({"v5": THREE["v5"]}) + entries({"mrl": THREE["mrl"]}, texts=200), "was not asked"),
    ],
)
def test_what_cannot_be_compared_is_refused(given, problem):
    with pytest.raises(PipelineError, match=problem) as caught:
        compare(given)
    assert caught.value.remedy


def test_rounding_changes_no_verdict():
    assert points(0.0171, (0.0004, 0.032)) == "+1.71 points [+0.04, +3.20]"
    assert points(-0.0171, (-0.032, -0.00004)) == "-1.710 points [-3.200, -0.004]"
    assert points(0.017, (-0.0004, 0.032)) == "+1.7 points [+0.0, +3.2]"
    assert points(0.017, (0.004, 0.032)) == "+1.7 points [+0.4, +3.2]"
