"""Tests and intervals against scipy and statsmodels, and the intervals' coverage by simulation."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.evaluation import statistics
from pipeline.evaluation.protocols import leave_one_out, score_embeddings


class TestPaired:
    @settings(deadline=None, max_examples=200)
    @given(pairs=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=12))
    def test_equals_scipy_and_statsmodels(self, pairs):
        from statsmodels.stats.weightstats import DescrStatsW

        a, b = np.array(pairs).T
        if np.ptp(a - b) < 1e-9:
            return
        found = statistics.paired_test(a - b)
        expected = scipy.stats.ttest_rel(a, b)
        assert found.p == pytest.approx(expected.pvalue, rel=1e-7)
        assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-7, abs=1e-12)
        assert found.interval == pytest.approx(DescrStatsW(a - b).tconfint_mean(0.05), rel=1e-7, abs=1e-12)
        assert found.cohens_d == pytest.approx(expected.statistic / np.sqrt(len(a)), rel=1e-9)
        assert (found.n, found.mean) == (len(a), pytest.approx((a - b).mean()))

    def test_one_pair_is_a_difference_and_no_test(self):
        assert statistics.paired_test([0.25]) == statistics.PairedTest(1, 0.25, None, None, None, None)

    def test_equal_differences_are_not_tested(self):
        same = statistics.paired_test([0.25, 0.25])
        assert (same.mean, same.sd, same.interval, same.p, same.cohens_d) == (0.25, 0.0, None, None, None)
        rounded = statistics.paired_test([7 / 12 - 5 / 12, 11 / 12 - 9 / 12, 5 / 12 - 3 / 12])
        assert (rounded.interval, rounded.p) == (None, None)  # 2 of 12 texts each time: rounding is no spread
        nothing = statistics.paired_test([0.0, 0.0, 0.0])
        assert (nothing.p, nothing.interval) == (1.0, None)

    def test_no_pair_is_refused(self):
        with pytest.raises(PipelineError, match="no pair"):
            statistics.paired_test([])


class TestHolm:
    @settings(deadline=None, max_examples=40)
    @given(p_values=st.lists(st.floats(0, 1), min_size=1, max_size=30))
    def test_equals_statsmodels(self, p_values):
        from statsmodels.stats.multitest import multipletests

        expected = multipletests(p_values, method="holm")[1]
        np.testing.assert_allclose(statistics.holm(p_values), expected, rtol=1e-12)

    def test_a_row_without_a_test_is_not_of_the_family(self):
        assert statistics.holm([0.02, None, 0.01]) == [0.02, None, 0.02]


def reference(values, query_index, draws):
    """Both stages one after another, text by text; a mean over what there is an outcome of."""
    rng = np.random.default_rng(77)
    texts = [values[query_index == text] for text in np.unique(query_index)]
    means = []
    for _ in range(draws):
        drawn = [
            texts[i][rng.integers(0, len(texts[i]), len(texts[i]))] for i in rng.integers(0, len(texts), len(texts))
        ]
        together = np.concatenate(drawn)
        if not np.isnan(together).all():
            means.append(np.nanmean(together))
    known = values[~np.isnan(values)]
    of = len(np.unique(query_index[~np.isnan(values)]))
    least, most = statistics.unobserved_bounds(known.mean(), of)
    return np.minimum(np.quantile(means, 0.025), least), np.maximum(np.quantile(means, 0.975), most)


class TestBootstrap:
    def test_of_texts_asked_often_is_that_of_the_two_stages_drawn_one_after_another(self):
        rng = np.random.default_rng(8)
        query_index = rng.permutation(np.repeat(np.arange(60), rng.integers(1, 6, 60)))
        values = (rng.random((len(query_index), 3)) < rng.random((60, 1))[query_index]).astype(float)
        values[:, 1] = np.where(query_index % 4 == 0, np.nan, values[:, 1])
        found = statistics.bootstrap_interval(values, query_index)
        expected = [reference(column, query_index, 4000) for column in values.T]
        np.testing.assert_allclose(found, expected, atol=0.008)

    @pytest.mark.parametrize("largest", [1, 1 << 20])
    def test_whole_outcomes_are_summed_as_exactly_as_fractions(self, largest):
        query_index = np.repeat(np.arange(40), 3)
        whole = np.random.default_rng(0).integers(0, largest + 1, size=(120, 2)).astype(float)
        ends = statistics.bootstrap_interval(whole, query_index, span=(0.0, largest))
        halves = statistics.bootstrap_interval(whole / 2 + 0.25, query_index, span=(0.25, largest / 2 + 0.25))
        np.testing.assert_allclose(ends, 2 * (halves - 0.25), rtol=0, atol=1e-8)

    def test_a_column_has_the_same_interval_alone_and_among_others(self):
        rng = np.random.default_rng(9)
        values, query_index = rng.integers(-1, 2, (900, 40)) / 3, rng.integers(0, 200, 900)
        together = statistics.bootstrap_interval(values, query_index, span=(-1.0, 1.0))
        alone = [statistics.bootstrap_interval(column, query_index, span=(-1.0, 1.0)) for column in values.T]
        np.testing.assert_array_equal(together, alone)

    def test_is_near_that_of_scipy(self):
        values = (np.random.default_rng(0).random((400, 2)) < [0.9, 0.6]).astype(float)
        found = statistics.bootstrap_interval(values)
        expected = scipy.stats.bootstrap(
            (values,), lambda x, axis: x.mean(axis=axis), method="percentile", n_resamples=20_000, axis=0, rng=1
        ).confidence_interval
        np.testing.assert_allclose(found, np.stack([expected.low, expected.high], axis=1), atol=0.004)

    def test_a_text_asked_twice_is_not_two_texts(self):
        values = np.random.default_rng(3).random(400) < 0.6
        once, twice = (
            statistics.bootstrap_interval(values),
            statistics.bootstrap_interval(np.tile(values, 2), np.tile(np.arange(400), 2)),
        )
        assert np.ptp(twice) == pytest.approx(np.ptp(once), rel=0.08)

    @pytest.mark.parametrize("texts", [1, 18, 500])
    @pytest.mark.parametrize("correct", [False, True])
    def test_all_right_or_all_wrong_has_the_exact_binomial_interval(self, texts, correct):
        found = statistics.bootstrap_interval(np.full(texts, correct))
        exact = scipy.stats.binomtest(texts * correct, texts).proportion_ci(0.95, method="exact")
        np.testing.assert_allclose(found, [exact.low, exact.high], rtol=1e-12)

    def test_methods_that_answer_alike_may_still_differ(self):
        low, high = statistics.bootstrap_interval(np.zeros((40, 2)), span=(-1.0, np.array([1.0, 2.0]))).T
        end = scipy.stats.binomtest(0, 40).proportion_ci(0.95, method="exact").high
        np.testing.assert_allclose([low, high], [[-end, -end], [end, 2 * end]])

    def test_an_interval_is_never_shorter_with_fewer_right(self):
        """1 wrong of 400 resampled alone gives a lower end above that of none wrong."""
        lows = [statistics.bootstrap_interval(np.arange(400) >= wrong)[0] for wrong in range(8)]
        assert lows == sorted(lows, reverse=True)

    def test_near_certainty_intervals_hold_the_truth(self):
        """Over all outcomes of 100 texts, by their probability: without the unseen, 63 % at 99 % right."""
        intervals = np.array([statistics.bootstrap_interval(np.arange(100) < n) for n in range(101)])
        for truth in (0.95, 0.98, 0.99, 0.995):
            held = (intervals[:, 0] <= truth) & (truth <= intervals[:, 1])
            assert scipy.stats.binom.pmf(np.arange(101), 100, truth)[held].sum() > 0.91

    def test_no_answer_is_refused(self):
        with pytest.raises(PipelineError, match="no prediction"):
            statistics.bootstrap_interval(np.zeros((0, 2)))


class TestCoverage:
    """How many 95 % intervals hold the truth, over data drawn anew from one distribution."""

    centres = np.random.default_rng(11).standard_normal((30, 8))

    def draw(self, rng, rows):
        fine = rng.integers(0, 30, rows)
        vectors = self.centres[fine] + 0.5 * rng.standard_normal((rows, 8))
        return vectors.astype(np.float32), np.stack([fine // 3, fine], axis=1)

    def covered(self, intervals, truth):
        low, high = np.moveaxis(np.array(intervals), -1, 0)
        return ((low <= truth) & (truth <= high)).mean()

    def test_gallery_intervals_hold_the_accuracy_of_all_queries_of_this_gallery(self):
        rng = np.random.default_rng(0)
        gallery = self.draw(rng, 300)
        truth = score_embeddings(*gallery, *self.draw(rng, 60_000), scale_dim=4).accuracy
        intervals = [score_embeddings(*gallery, *self.draw(rng, 400), scale_dim=4).interval for _ in range(300)]
        assert 0.92 <= self.covered(intervals, truth) <= 0.97

    @pytest.mark.slow
    @pytest.mark.parametrize(("rows", "splits"), [(300, 100), (100, 300)])
    def test_leave_one_out_intervals_hold_the_mean_over_all_splits(self, rows, splits):
        """The protocol's own mean: texts as queries and as neighbours, both drawn anew.

        Of 300 rows a text is asked in three samples or so; resampled in one stage alone, 91 % of intervals held it.
        """
        rng = np.random.default_rng(1)
        found = [leave_one_out(*self.draw(rng, rows), sample=100, samples=10, scale_dim=8) for _ in range(splits)]
        truth = np.mean([scores.accuracy for scores in found], axis=0)
        assert 0.92 <= self.covered([scores.interval for scores in found], truth) <= 0.98


class TestMissing:
    @settings(deadline=None, max_examples=30)
    @given(st.lists(st.sampled_from([0.0, 1.0, np.nan]), min_size=2, max_size=60), st.integers(1, 3))
    def test_what_a_text_lacks_is_as_if_the_text_were_not_there(self, column, repeats):
        values, index = np.array(column), np.arange(len(column)) // repeats
        known = ~np.isnan(values)
        found = statistics.bootstrap_interval(np.stack([values, np.ones(len(values))], axis=1), index)
        if not known.any():
            assert np.isnan(found[0]).all()
        elif repeats == 1:
            np.testing.assert_allclose(found[0], statistics.bootstrap_interval(values[known]), rtol=1e-12)
        else:
            assert found[0, 0] <= values[known].mean() <= found[0, 1]
        np.testing.assert_allclose(found[1], statistics.bootstrap_interval(np.ones(len(values)), index), rtol=1e-12)


class TestEstimate:
    def test_covers_seeds_and_texts(self):
        rng = np.random.default_rng(0)
        seeds = rng.normal(0, 0.02, (5, 1))
        few, many = (rng.random((1, n)) + seeds for n in (50, 5000))
        wide, narrow = (statistics.estimate(values, span=(-1.0, 2.0)) for values in (few, many))
        assert wide.value == pytest.approx(few.mean())
        assert wide.high - wide.low > narrow.high - narrow.low
        half = 2.776 * seeds.std(ddof=1) / np.sqrt(5)
        assert (narrow.high - narrow.low) / 2 == pytest.approx(np.hypot(half, 1.96 * 0.2887 / np.sqrt(5000)), rel=0.05)

    def test_of_one_seed_is_the_bootstrap_over_the_texts_that_have_an_outcome(self):
        values = np.array([[0.0, 1.0, np.nan, 1.0]])
        found = statistics.estimate(values)
        assert (found.value, found.sd, found.n) == (pytest.approx(2 / 3), None, 1)
        assert found.interval == pytest.approx(tuple(statistics.bootstrap_interval(np.array([0.0, 1.0, 1.0]))))
        assert np.isnan(statistics.estimate(np.full((2, 3), np.nan)).value)

    @settings(deadline=None, max_examples=50)
    @given(st.lists(st.floats(0.2, 0.8), min_size=1, max_size=5))
    def test_the_half_widths_of_seeds_and_texts_add_up_as_squares(self, means):
        value = float(np.mean(means))
        found = statistics.combine(means, (value - 0.1, value + 0.1), (-9.0, 9.0))
        seeds = statistics.paired_test(means).interval
        around = 0.0 if seeds is None else seeds[1] - value
        assert found.high - found.value == pytest.approx(np.hypot(0.1, around))
        assert found.value - found.low == pytest.approx(np.hypot(0.1, around))
        shares = statistics.combine(means, (value - 0.1, value + 0.1))
        assert (shares.low, shares.high) == (max(0, found.low), min(1, found.high))

    def test_a_sign_needs_an_interval_that_excludes_zero(self):
        assert [statistics.sign(i) for i in ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.2), None)] == [1, -1, 0, 0]
