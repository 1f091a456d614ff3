"""Protocols against plain double loops that compare one text with one other at a time."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from heads.knn import prefix_neighbours
from pipeline.errors import PipelineError
from pipeline.evaluation import protocols
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.protocols import (
    _Search,
    gallery_grid,
    grid_sizes,
    leave_one_out,
    sample_rows,
    score_embeddings,
)
from pipeline.evaluation.scores import Score
from tests.pipeline.evaluation.predicted import identity


def slow_ranking(query, gallery, length):
    """The gallery by cosine to one query at one prefix, nearest first: (minus the cosine in units of 2^-24, row)."""
    ranked = []
    for row, other in enumerate(gallery):
        a, b = query[:length].astype(float), other[:length].astype(float)
        norms = np.sqrt((a @ a) * (b @ b))
        ranked.append((-round((a @ b) / norms * 2**24) if norms else 0, row))
    return sorted(ranked)


def slow_nearest(query, gallery, length, k):
    return [row for _, row in slow_ranking(query, gallery, length)[:k]]


def slow_label(query, gallery, labels, length, k):
    """Label one query at one prefix by looping over its gallery: int per level; labels of -1 have no vote."""
    nearest = slow_ranking(query, gallery, length)[:k]
    winners = []
    for level in range(labels.shape[1]):
        tally = {}
        for negative, row in nearest:
            if labels[row, level] >= 0:
                votes, total = tally.get(labels[row, level], (0, 0))
                tally[labels[row, level]] = (votes + 1, total - negative)
        winners.append(min(tally, key=lambda label: (-tally[label][0], -tally[label][1], label), default=-1))
    return winners


def slow_answers(queries, gallery_of, labels_of, lengths, k):
    """Label every query, `gallery_of(i)` being the gallery of query i: [J, q, L]."""
    return np.array(
        [
            [slow_label(query, gallery_of(i), labels_of(i), length, k) for i, query in enumerate(queries)]
            for length in lengths
        ]
    )


def without(rows, i):
    return np.delete(rows, i, axis=0)


@st.composite
def tied_texts(draw, most=14):
    """Vectors of small integers, so that similarities tie, with labels of two levels."""
    count = draw(st.integers(3, most))
    vectors = draw(arrays(np.float32, (count, 4), elements=st.integers(-1, 2)))
    fine = draw(arrays(np.int64, count, elements=st.integers(0, 5)))
    return vectors, np.stack([fine // 2, fine], axis=1)


def made(rows, seed=0, dim=8, classes=6):
    """Vectors around class centres, with labels of two levels."""
    rng = np.random.default_rng(seed)
    fine = rng.integers(0, classes, rows)
    vectors = np.random.default_rng(99).standard_normal((classes, dim))[fine] + rng.standard_normal((rows, dim))
    return vectors.astype(np.float32), np.stack([fine // 2, fine], axis=1)


class TestGallery:
    @settings(deadline=None, max_examples=60)
    @given(gallery=tied_texts(), queries=tied_texts(), k=st.integers(1, 16), width=st.sampled_from([1, 2, 4]))
    def test_equals_the_double_loop(self, gallery, queries, k, width):
        scores = score_embeddings(*gallery, *queries, scale_dim=width, k=k)
        lengths = range(width, 5, width)
        expected = slow_answers(queries[0], lambda _: gallery[0], lambda _: gallery[1], lengths, k)
        np.testing.assert_array_equal(scores.predicted, expected)
        np.testing.assert_allclose(scores.accuracy, (expected == queries[1]).mean(axis=1))
        assert scores.dims == tuple(lengths)
        assert (scores.gallery, scores.queries, scores.samples) == (len(gallery[0]), len(queries[0]), 1)

    def test_prefixes_of_any_length(self):
        gallery, labels = made(60, dim=12)
        queries, query_labels = made(20, seed=1, dim=12)
        scores = score_embeddings(gallery, labels, queries, query_labels, scale_dim=(2, 5, 12))
        for j, length in enumerate((2, 5, 12)):
            alone = score_embeddings(gallery[:, :length], labels, queries[:, :length], query_labels, scale_dim=length)
            np.testing.assert_array_equal(scores.predicted[j], alone.predicted[0])
        assert [prefix.dim for prefix in scores.score(identity()).prefixes] == [2, 5, 12]

    @settings(deadline=None, max_examples=40)
    @given(gallery=tied_texts(), queries=tied_texts(), k=st.integers(1, 16))
    def test_neighbours_of_the_own_label_are_counted(self, gallery, queries, k):
        scores = score_embeddings(*gallery, *queries, scale_dim=2, k=k)
        for j, length in enumerate((2, 4)):
            for i, query in enumerate(queries[0]):
                near = slow_nearest(query, gallery[0], length, k)
                own = [sum(gallery[1][row, level] == queries[1][i, level] for row in near) for level in (0, 1)]
                assert scores.matching[j, i].tolist() == own
        expected = scores.matching.mean(axis=1) / min(k, len(gallery[0]))
        found = [[level.precision for level in prefix.levels] for prefix in scores.score(identity()).prefixes]
        np.testing.assert_allclose(found, expected)


class TestLeaveOneOut:
    @settings(deadline=None, max_examples=60)
    @given(texts=tied_texts(), k=st.integers(1, 16), sample=st.integers(2, 16))
    def test_equals_the_double_loop(self, texts, k, sample):
        vectors, labels = texts
        scores = leave_one_out(vectors, labels, sample=sample, samples=3, scale_dim=2, k=k)
        samples = list(sample_rows(len(vectors), sample, 3))
        expected = [
            slow_answers(
                vectors[rows],
                lambda i, rows=rows: without(vectors[rows], i),
                lambda i, rows=rows: without(labels[rows], i),
                (2, 4),
                k,
            )
            for rows in samples
        ]
        np.testing.assert_array_equal(scores.predicted, np.concatenate(expected, axis=1))
        np.testing.assert_array_equal(scores.query_index, np.concatenate(samples))
        shares = [(part == labels[rows]).mean(axis=1) for part, rows in zip(expected, samples, strict=True)]
        np.testing.assert_allclose(scores.accuracy, np.mean(shares, axis=0))

    def test_samples_that_overlap_are_searched_once_and_answer_as_each_by_itself(self, monkeypatch):
        vectors, labels = made(60)
        each = [_Search(4, 5, None).classify_each_other(vectors[rows], labels[rows]) for rows in sample_rows(60, 40)]
        searches = []

        def counted(*arguments, **options):
            searches.append(arguments)
            return prefix_neighbours(*arguments, **options)

        monkeypatch.setattr(protocols, "prefix_neighbours", counted)
        found = leave_one_out(vectors, labels, sample=40, scale_dim=4)
        assert len(searches) == 1
        np.testing.assert_array_equal(found.predicted, np.concatenate([part.predicted for part in each], axis=1))
        np.testing.assert_array_equal(found.matching, np.concatenate([part.matching for part in each], axis=1))

    def test_samples_are_fixed_whatever_is_scored(self):
        one = leave_one_out(*made(80), sample=20, scale_dim=4)
        other = leave_one_out(*made(80, seed=5), sample=20, scale_dim=8, k=3)
        np.testing.assert_array_equal(one.query_index, other.query_index)
        assert (one.samples, one.queries, one.gallery) == (20, 20, 19)
        rows = np.stack(list(sample_rows(4500)))
        assert rows.shape == (20, 500)
        assert (np.diff(rows, axis=1) > 0).all()
        assert len(np.unique(rows, axis=0)) == 20

    def test_a_split_no_larger_than_a_sample_is_one_sample(self):
        scores = leave_one_out(*made(40), sample=40, scale_dim=4)
        assert (scores.samples, scores.queries, scores.gallery) == (1, 40, 39)


class TestGrid:
    @settings(deadline=None, max_examples=25)
    @given(
        train=tied_texts(), held_out=tied_texts(), sizes=st.sets(st.integers(1, 13), min_size=1), k=st.integers(1, 6)
    )
    def test_equals_the_double_loop(self, train, held_out, sizes, k):
        vectors = held_out[0]
        sizes = [size for size in sizes if size <= max(len(train[0]), len(vectors) - 1)]
        cells = gallery_grid(*train, *held_out, sizes=sizes, draws=2, scale_dim=2, k=k) if sizes else ()
        assert {cell.gallery for cell in cells} == {*sizes}
        for cell in cells:
            size, expected = cell.gallery, []
            for draw in range(cell.samples):
                source = train if cell.origin == "train" else held_out
                order = np.random.default_rng(draw).permutation(len(source[0]))

                def gallery(i, source=source, order=order, origin=cell.origin, size=size):
                    if origin == "train":
                        return np.sort(order[:size])
                    others = [row for row in order[: size + 1] if row != i]
                    return np.sort(others[:size])

                expected.append(
                    slow_answers(
                        vectors,
                        lambda i, s=source, g=gallery: s[0][g(i)],
                        lambda i, s=source, g=gallery: s[1][g(i)],
                        (2, 4),
                        k,
                    )
                )
            np.testing.assert_array_equal(cell.predicted, np.concatenate(expected, axis=1))

    def test_every_cell_asks_every_held_out_text_in_every_draw(self):
        cells = gallery_grid(*made(90), *made(40, seed=1), sizes=[10, 39, 60, 90], draws=3, scale_dim=4)
        names = [(cell.gallery, cell.origin, cell.samples) for cell in cells]
        assert names == [
            (10, "train", 3),
            (10, "held-out", 3),
            (39, "train", 3),
            (39, "held-out", 1),
            (60, "train", 3),
            (90, "train", 1),
        ]
        for cell in cells:
            assert cell.queries == 40
            np.testing.assert_array_equal(np.bincount(cell.query_index), cell.samples)

    def test_sizes_by_default(self):
        assert grid_sizes(15_000, 4_500) == [500, 1000, 2000, 4000, 4499, 8000, 15_000]
        assert grid_sizes(300, 100) == [99, 300]


class TestRecord:
    def test_is_what_score_prints(self):
        scores = leave_one_out(*made(80), sample=40, samples=4, scale_dim=4)
        record = json.loads(json.dumps(scores.score(identity(), [[0.5, 0.25], [0.75, None]]).to_json()))
        assert (record["protocol"], record["k"], record["gallery"], record["queries"]) == ("leave-one-out", 5, 39, 40)
        assert [(p["prefix"], p["dim"]) for p in record["prefixes"]] == [(1, 4), (2, 8)]
        level = record["prefixes"][1]["levels"][0]
        assert level["level"] == 0
        assert level["classifier"] == 0.75
        assert level["ci95"][0] <= level["accuracy"] <= level["ci95"][1]
        assert 0 <= level["macro"] <= 1
        first, last = (prefix["levels"] for prefix in record["prefixes"])
        assert record["coarse_gain"] == pytest.approx(first[0]["accuracy"] - last[0]["accuracy"])
        assert record["fine_gain"] == pytest.approx(last[1]["accuracy"] - first[1]["accuracy"])
        assert record["steerability"] == pytest.approx(record["coarse_gain"] + record["fine_gain"])

    def test_survives_a_file(self, tmp_path):
        scores = leave_one_out(*made(80), sample=40, samples=4, scale_dim=4)
        np.savez_compressed(tmp_path / "answers.npz", **scores.to_arrays())
        with np.load(tmp_path / "answers.npz", allow_pickle=False) as arrays:
            again = Predictions.from_arrays(arrays)
        assert again.score(identity()) == scores.score(identity())
        np.testing.assert_array_equal(again.predicted, scores.predicted)
        np.testing.assert_array_equal(again.matching, scores.matching)

    def test_is_read_back_as_it_was_and_nothing_else_is(self):
        scores = leave_one_out(*made(80), sample=40, samples=4, scale_dim=4)
        score = scores.score(identity(hyperparameters={"epochs": 2}), scoring=1, errors=())
        record = json.loads(json.dumps(score.to_json()))
        assert Score.from_json(record) == score
        for harm in ({"k": "5"}, {"k": True}, {"prefixes": 3}, {"prefixes": [{}]}, {"gallery": None}, {"dataset": 1}):
            with pytest.raises(TypeError):
                Score.from_json({**record, **harm})
        del record["k"]
        with pytest.raises(TypeError):
            Score.from_json(record)

    def test_neighbours_without_a_label_do_not_vote(self):
        vectors, labels = made(60)
        lacking = labels.copy()
        lacking[::2, 1] = -1
        found = score_embeddings(vectors, lacking, vectors, lacking, k=5, scale_dim=4)
        assert (found.predicted[:, :, 1] >= 0).mean() > 0.9
        only = score_embeddings(vectors[1::2], labels[1::2], vectors, lacking, k=1, scale_dim=4)
        assert (only.predicted >= 0).all()

    def test_is_the_same_every_time(self):
        first, second = (leave_one_out(*made(80), sample=40, scale_dim=4).score(identity()) for _ in range(2))
        assert first == second


@pytest.mark.parametrize(
    "call",
    [
        lambda x, y: score_embeddings(x, y[:-1], x, y),
        lambda x, y: score_embeddings(x, y, x[:0], y[:0]),
        lambda x, y: leave_one_out(x, y[:, 0]),
        lambda x, y: leave_one_out(x[:1], y[:1]),
        lambda x, y: gallery_grid(x, y, x, y, sizes=[31]),
        lambda x, y: gallery_grid(x, y, x, y, sizes=[0]),
    ],
)
def test_bad_input_is_refused_with_a_remedy(call):
    vectors, labels = made(30)
    with pytest.raises(PipelineError) as caught:
        call(vectors, labels)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy
