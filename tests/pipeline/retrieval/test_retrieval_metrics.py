"""Measures against loops that spell their definitions out; corpora against the statistics they promise to keep."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.retrieval.documents import Corpus
from pipeline.retrieval.engines import INDEXES, build
from pipeline.retrieval.experiment import Plan, flops_per_query
from pipeline.retrieval.metrics import TOP, Question, measure
from pipeline.retrieval.quantization import stored
from pipeline.retrieval.records import SearchResult
from pipeline.retrieval.results import front, needed, pareto


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def drawn(seed, rows, dim=24, classes=6):
    rng = np.random.default_rng([seed, rows])
    fine = rng.integers(0, classes, rows)
    centres = np.random.default_rng(seed).standard_normal((classes, dim))
    vectors = (centres[fine] + rng.standard_normal((rows, dim))).astype(np.float32)
    return vectors, np.stack([fine // 2, fine], axis=1)


def nearest(query, vectors, dim):
    similarities = unit(vectors[:, :dim]).astype(np.float64) @ query[:dim]
    return np.lexsort((np.arange(len(vectors)), -similarities))


@pytest.fixture(scope="module")
def everything():
    documents, labels = drawn(0, 400)
    queries, asked = drawn(0, 37)
    asked[0] = [5, 9]  # a class that no document has
    full = stored(documents, 24)
    question = Question.of(queries, asked, labels.astype(np.int32), full.device)
    measured = measure(question, full, (8, 16), (8, 16, 20, 24), (12, 30, 90), ("int8",), lambda note: None)
    return measured, documents, labels, queries, asked


class TestMeasure:
    def expected(self, everything, dim, candidates):
        """Recall, precision and level recall of two stages, a query and a document at a time."""
        _, documents, labels, queries, asked = everything
        recalls, precisions, kept_shares = [], [], []
        for query, own in zip(queries, asked, strict=True):
            kept = nearest(query, documents, dim)[:candidates]
            truth = nearest(query, documents, 24)
            best = [row for row in truth if row in set(kept)][:TOP]
            recalls.append(len(set(best) & set(truth[:TOP])) / TOP)
            precisions.append([(labels[best, level] == own[level]).mean() for level in (0, 1)])
            sizes = [(labels[:, level] == own[level]).sum() for level in (0, 1)]
            kept_shares.append(
                [
                    (labels[kept, level] == own[level]).sum() / min(candidates, sizes[level])
                    if sizes[level]
                    else np.nan
                    for level in (0, 1)
                ]
            )
        return recalls, precisions, kept_shares

    @pytest.mark.parametrize("dim", [8, 16])
    @pytest.mark.parametrize("candidates", [12, 30, 90])
    def test_two_stages_are_what_the_definitions_say(self, everything, dim, candidates):
        (outcome,) = [o for o in everything[0].outcomes if (o.dim, o.candidates) == (dim, candidates)]
        recalls, precisions, kept = self.expected(everything, dim, candidates)
        assert outcome.recall == pytest.approx(recalls)
        assert outcome.precision == pytest.approx(np.array(precisions))
        assert outcome.level_recall == pytest.approx(np.array(kept), nan_ok=True)
        assert np.isnan(outcome.level_recall[0]).all()
        assert not np.isnan(outcome.level_recall[1:]).any()

    def test_one_stage_is_the_two_stages_of_ten_candidates(self, everything):
        for dim in (8, 16, 20, 24):
            (outcome,) = [
                o for o in everything[0].outcomes if (o.dim, o.candidates, o.storage) == (dim, None, "float32")
            ]
            recalls, precisions, _ = self.expected(everything, dim, TOP)
            assert outcome.recall == pytest.approx(recalls)
            assert outcome.precision == pytest.approx(np.array(precisions))

    def test_a_filter_that_keeps_few_of_the_nearest_still_gives_the_best_of_what_it_keeps(self):
        rng = np.random.default_rng(5)
        documents = rng.standard_normal((4000, 24)).astype(np.float32)
        queries, labels = rng.standard_normal((9, 24)).astype(np.float32), rng.integers(0, 3, (4000, 1))
        question = Question.of(queries, labels[:9], labels.astype(np.int32), torch.device("cpu"))
        measured = measure(question, stored(documents, 24), (2,), (), (12, 300), (), lambda note: None)
        for count in (12, 300):
            found = measured.outcome(2, count)
            for number, query in enumerate(queries):
                kept = set(nearest(query, documents, 2)[:count])
                best = [row for row in nearest(query, documents, 24) if row in kept][:TOP]
                assert found.precision[number, 0] == pytest.approx((labels[best, 0] == labels[number, 0]).mean())
                truth = nearest(query, documents, 24)[:TOP]
                assert found.recall[number] == pytest.approx(len(set(best) & set(truth)) / TOP)

    def test_the_curve_is_recall_by_number_of_candidates(self, everything):
        for dim in (8, 16):
            curve = everything[0].curves[dim]
            assert len(curve) == 90
            for outcome in everything[0].outcomes:
                if outcome.dim == dim and outcome.candidates is not None:
                    assert curve[outcome.candidates - 1] == pytest.approx(outcome.recall.mean(), abs=1e-6)
            assert (np.diff(curve) >= 0).all()

    def test_smaller_formats_stand_beside(self, everything):
        kinds = {(o.dim, o.storage) for o in everything[0].outcomes if o.candidates is None}
        assert {(8, "int8"), (16, "int8"), (24, "int8")} <= kinds
        (rounded,) = [o for o in everything[0].outcomes if (o.dim, o.storage) == (24, "int8")]
        assert 0.8 < rounded.recall.mean() <= 1


class TestCorpus:
    def test_a_smaller_one_is_some_of_the_texts_and_the_same_ones_each_time(self):
        features, labels = drawn(1, 200)
        corpus = Corpus(features, labels, 50)
        full = corpus.embedded(lambda rows: rows, 24)
        assert len(set(corpus.origins.tolist())) == 50
        assert full.codes.numpy() == pytest.approx(unit(features[corpus.origins]), abs=1e-6)
        assert np.array_equal(corpus.document_labels, labels[corpus.origins])
        assert np.array_equal(Corpus(features, labels, 50).origins, corpus.origins)
        assert corpus.simulated == 0

    def test_a_larger_one_keeps_the_texts_and_copies_each_as_often_as_any_other(self):
        features, labels = drawn(1, 200)
        corpus = Corpus(features, labels, 1150)
        counts = np.bincount(corpus.origins)
        assert set(counts.tolist()) == {5, 6}
        assert corpus.simulated == 950
        rows = corpus.embedded(lambda rows: rows, 24).codes.numpy()
        assert rows[:200] == pytest.approx(unit(features), abs=1e-6)
        assert len(np.unique(rows, axis=0)) == 1150, "a copy is no duplicate"

    def test_the_same_seed_gives_the_same_copies_to_every_head(self):
        features, labels = drawn(1, 200)
        seen = []

        def first(rows):
            seen.append(rows.copy())
            return rows

        Corpus(features, labels, 900).embedded(first, 24)
        Corpus(features, labels, 900).embedded(lambda rows: seen.append(rows.copy()) or rows[:, :5], 5)
        half = len(seen) // 2
        assert all(np.array_equal(a, b) for a, b in zip(seen[:half], seen[half:], strict=True))

    def test_copies_keep_mean_and_covariance_of_a_class(self):
        rng = np.random.default_rng(3)
        shape = rng.standard_normal((6, 6)) * 0.05
        features = (np.eye(6)[0] + rng.standard_normal((600, 6)) @ shape).astype(np.float32)
        features = unit(features).astype(np.float32)
        labels = np.zeros((600, 2), np.int64)
        corpus = Corpus(features, labels, 60_600)
        copies = np.concatenate([rows for part, rows in corpus.parts() if part.start >= 600])
        assert copies.mean(axis=0) == pytest.approx(features.mean(axis=0), abs=0.01)
        own, theirs = np.cov(features.T), np.cov(copies.T)
        assert np.linalg.norm(theirs - own) < 0.1 * np.linalg.norm(own)
        distances = np.square(copies - features[corpus.origins[600:]]).sum(axis=1).mean()
        assert distances < 2 * np.trace(own), "nearer to its original than another text of the class"

    def test_a_class_of_one_text_gets_the_common_covariance(self):
        features, labels = drawn(4, 300)
        features, labels = np.vstack([features, np.ones(24)]).astype(np.float32), np.vstack([labels, [9, 19]])
        corpus = Corpus(features, labels, 30_100)
        copies = np.concatenate([rows for part, rows in corpus.parts() if part.start >= 301])
        mine = copies[(corpus.origins[301:] == 300) & (corpus.kinds[301:] < 0)]
        units = unit(features[:300])
        within = np.mean([np.var(units[labels[:300, 1] == c], axis=0, ddof=1).sum() for c in range(6)])
        assert mine.var(axis=0).sum() == pytest.approx(within / 2, rel=0.35)

    def test_finest_classes_grow_with_the_cube_root_of_the_documents_and_coarse_ones_do_not(self):
        features, labels = drawn(4, 300)
        counts = [len(np.unique(labels[:, level])) for level in (0, -1)]
        assert np.array_equal(Corpus(features, labels, 300).document_labels, labels)
        grown = Corpus(features, labels, 300 * 8**3).document_labels
        assert np.array_equal(grown[:300], labels)
        assert len(np.unique(grown[:, 0])) == counts[0]
        assert len(np.unique(grown[:, -1])) == 8 * counts[1]
        assert len(np.unique(grown, axis=0)) == len(np.unique(grown[:, -1])), "each finest label has one parent"
        sizes = np.bincount(grown[:, -1])
        by_old = np.bincount(labels[:, -1])
        assert sizes[sizes > 0].min() > 300 * 64 * by_old[by_old > 0].min() / by_old.sum() / 2

    def test_a_new_class_lies_among_its_siblings_as_far_from_them_as_they_are_from_one_another(self):
        rng = np.random.default_rng(0)
        centres = np.repeat(np.eye(40)[:4] * 3, 30, axis=0) + rng.standard_normal((120, 40)) * 0.15
        labels = np.repeat(np.stack([np.arange(120) // 30, np.arange(120)], axis=1), 10, axis=0)
        features = (centres[labels[:, 1]] + rng.standard_normal((1200, 40)) * 0.02).astype(np.float32)
        corpus = Corpus(features, labels, 1200 * 8)
        rows, own = corpus.embedded(lambda rows: rows, 40).codes.numpy(), corpus.document_labels
        means = np.array([rows[own[:, 1] == c].mean(axis=0) for c in range(own[:, 1].max() + 1)])
        parents = np.array([own[own[:, 1] == c][0, 0] for c in range(len(means))])
        assert len(means) == 240
        for parent in range(4):
            old, new = means[:120][parents[:120] == parent], means[120:][parents[120:] == parent]
            spread = np.square(old - old.mean(axis=0)).sum(axis=1).mean()
            assert np.square(new - old.mean(axis=0)).sum(axis=1).mean() == pytest.approx(spread, rel=0.25)
            nearest = np.square(new[:, None] - old[None]).sum(axis=-1).min(axis=1)
            assert nearest.min() > 0.1 * spread, "no copy of a class that is there"

    def test_texts_without_a_finest_label_are_copied_too(self):
        features, labels = drawn(4, 300)
        labels = labels.copy()
        labels[:50, -1] = -1
        corpus = Corpus(features, labels, 3000)
        rows = corpus.embedded(lambda rows: rows, 24).codes.numpy()
        assert np.isfinite(rows).all()
        assert (corpus.document_labels[np.isin(corpus.origins, np.arange(50)), -1] == -1).all()

    def test_memory_is_that_of_the_vectors(self):
        features, labels = drawn(5, 500)
        widest = 0

        def embed(rows):
            nonlocal widest
            widest = max(widest, len(rows))
            return rows

        assert len(Corpus(features, labels, 50_000).embedded(embed, 24)) == 50_000
        assert widest <= 1 << 14


def searched(method, recall, precision):
    """A search by one stage of 64 dims."""
    sure = ((0.0, 1.0),) * len(precision)
    nothing = (None,) * len(precision)
    return SearchResult(
        method, 10, 64, 1, recall, None, (0.0, 1.0), precision, nothing, sure, flops_per_query=5, bytes_per_document=1,
        filter_bytes_per_document=1, index_bytes=1, latency_ms=1.0, latency_low_ms=1.0, latency_high_ms=1.0,
        latency_p95_ms=1.0, queries_per_second=1.0, latency_queries=1,
    )  # fmt: skip


class TestFigures:
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
    def test_the_front_is_what_nothing_beats(self, pairs):
        beaten = {
            i
            for i, (quality, cost) in enumerate(pairs)
            for other, price in pairs
            if other >= quality and price <= cost and (other, price) != (quality, cost)
        }
        assert front(*zip(*pairs, strict=True)) == set(range(len(pairs))) - beaten

    def test_recall_orders_the_ways_of_one_method_and_labels_all_methods(self):
        first, second = pareto([searched("a", 0.5, (0.9, 0.9)), searched("b", 0.4, (0.9, 0.8))])
        assert "flops_per_query" in first.recall_front
        assert "flops_per_query" in second.recall_front
        assert "flops_per_query" in first.precision_front
        assert "flops_per_query" not in second.precision_front

    def test_fewest_candidates_for_a_recall(self):
        curve = np.array([0.1, 0.5, 0.5, 0.9], np.float32)
        assert [needed(curve, recall) for recall in (0.05, 0.5, 0.6, 0.95)] == [1, 2, 4, None]

    def test_published_operations(self):
        assert flops_per_query(64, 1_000_000, 1000, 256) == 128_512_000
        assert flops_per_query(64, 1_000_000, 2000, 256) == 129_024_000
        assert flops_per_query(128, 1_000_000, 1000, 256) == 256_512_000

    def test_candidates_by_default_are_shares_of_the_corpus_and_hold_what_is_asked_for(self):
        assert Plan().counts(1_000_000) == (1000, 2000, 5000, 10_000, 20_000)
        assert Plan().counts(1000) == (50,)
        assert Plan().counts(15_000) == (50, 75, 150, 300)
        assert Plan(candidates=(500, 50)).counts(100) == (50, 100)


class TestFaiss:
    def test_flat_finds_what_we_find_and_the_others_nearly_that(self):
        pytest.importorskip("faiss")
        documents, _ = drawn(7, 3000)
        queries, _ = drawn(7, 50)
        units = stored(documents, 16)
        exact = np.array([nearest(query, documents, 16)[:20] for query in queries])
        for kind in INDEXES:
            index = build(kind, units)
            found = index.search(torch.from_numpy(queries), 20).numpy()
            shares = [len(set(a) & set(b)) / 20 for a, b in zip(found, exact, strict=True)]
            assert np.mean(shares) >= (1 if kind == "flat" else 0.8), kind
            assert index.disk_bytes > 3000 * 64
            assert index.build_seconds > 0
