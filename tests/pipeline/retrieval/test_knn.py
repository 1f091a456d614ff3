"""Our search against brute force: equal rows and equal orders, ties included, whatever the shape and the storage."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.retrieval import knn
from pipeline.retrieval.knn import search
from pipeline.retrieval.quantization import KINDS, Stored, stored
from pipeline.retrieval.two_stage_search import search_rounded, two_stage


def exact_vectors(rng, rows, dim):
    """Vectors whose every prefix of 16 has cosines that float32 holds exactly, so that many tie: 4 of 16 are +-1."""
    vectors = np.zeros((rows, dim), np.float32)
    for block in range(0, dim, 16):
        for row in range(rows):
            vectors[row, block + rng.permutation(16)[:4]] = rng.choice([-1.0, 1.0], 4)
    return vectors


def brute_force(queries, vectors, dim, rows=None):
    """Rows by falling similarity, then by row: a full sort in float64, a query at a time."""
    found = []
    for number, query in enumerate(queries[:, :dim].astype(np.float64)):
        among = np.arange(len(vectors)) if rows is None else rows[number]
        similarities = vectors[among, :dim].astype(np.float64) @ query
        found.append(among[np.lexsort((among, -similarities))])
    return np.array(found)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(1, 40),
    documents=st.integers(1, 700),
    k=st.integers(1, 60),
    kind=st.sampled_from(sorted(KINDS)),
)
def test_search_is_brute_force_ties_included(seed, queries, documents, k, kind):
    rng = np.random.default_rng(seed)
    asked, vectors = exact_vectors(rng, queries, 16), exact_vectors(rng, documents, 16)
    found = search(asked, stored(vectors, 16, kind), k)
    expected = brute_force(asked, vectors, 16)[:, :k]
    assert np.array_equal(found.rows.numpy(), expected)
    cosines = np.take_along_axis(asked @ vectors.T / 4, expected, axis=1)
    assert np.abs(found.similarities.numpy() - cosines).max() < 1e-6


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(1, 40),
    documents=st.integers(30, 400),
    candidates=st.integers(5, 500),
)
def test_two_stages_are_brute_force_twice(seed, queries, documents, candidates):
    rng = np.random.default_rng(seed)
    asked, vectors = exact_vectors(rng, queries, 64), exact_vectors(rng, documents, 64)
    found = two_stage(asked, stored(vectors, 16), stored(vectors, 64), candidates, 5)
    kept = brute_force(asked, vectors, 16)[:, :candidates]
    assert np.array_equal(found.rows.numpy(), brute_force(asked, vectors, 64, kept)[:, :5])


@pytest.mark.parametrize("queries", [3, 200])
def test_real_numbers_are_found_in_the_order_of_their_cosines(queries):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((5000, 48)).astype(np.float32)
    vectors[rng.integers(0, 5000, 500)] = vectors[7]
    asked = rng.standard_normal((queries, 48)).astype(np.float32)
    found = search(asked, stored(vectors, 32), 100)
    units = vectors[:, :32].astype(np.float64) / np.linalg.norm(vectors[:, :32], axis=1, keepdims=True)
    cosines = asked[:, :32] / np.linalg.norm(asked[:, :32], axis=1, keepdims=True) @ units.T
    theirs = np.take_along_axis(cosines, found.rows.numpy(), axis=1)
    assert np.abs(found.similarities.numpy() - theirs).max() < 1e-6
    assert (np.diff(found.similarities.numpy(), axis=1) <= 0).all()
    assert np.abs(theirs - -np.sort(-cosines, axis=1)[:, :100]).max() < 1e-6
    assert all(len(set(row)) == 100 for row in found.rows.tolist())
    copies = np.flatnonzero((vectors == vectors[7]).all(axis=1))
    for row in found.rows.numpy():
        among = row[np.isin(row, copies)]
        assert np.array_equal(among, copies[: len(among)]), "copies of one document come in the order of their rows"


@pytest.mark.parametrize("k", [1, 3, 20, 700])
def test_few_and_many_queries_of_many_documents_take_different_paths_to_the_rows_of_brute_force(k):
    rng = np.random.default_rng(1)
    asked, vectors = exact_vectors(rng, 40, 16), exact_vectors(rng, 6000, 16)
    documents, expected = stored(vectors, 16), brute_force(asked, vectors, 16)[:, :k]
    assert np.array_equal(search(asked, documents, k).rows.numpy(), expected)
    assert np.array_equal(search(asked[:4], documents, k).rows.numpy(), expected[:4])
    assert np.array_equal(search(asked[:1], documents, k).rows.numpy(), expected[:1])


@pytest.mark.parametrize("k", [1000, 1200])
@pytest.mark.parametrize("misled", ["by nothing", "by near ones", "by far ones"])
def test_many_neighbours_are_those_of_brute_force_whatever_a_sample_of_the_documents_says(k, misled):
    rng = np.random.default_rng(6)
    vectors = rng.standard_normal((40_000, 8)).astype(np.float32)
    vectors[:10_000] = vectors[0] + 0.3 * rng.standard_normal((10_000, 8)).astype(np.float32)
    numbers = torch.arange(40_000)[:, None]
    sampled = np.isin(numbers[:, 0], Stored(numbers, None).drawn(40_000 // 16).codes[:, 0])
    later = ~sampled & (np.arange(40_000) // 2000 == 12)  # so many at once that finds are merged before all have k
    near = {"by nothing": sampled & False, "by near ones": sampled, "by far ones": later}
    vectors[near[misled]] = vectors[-1] + 0.01 * rng.standard_normal((near[misled].sum(), 8))
    asked = np.concatenate([vectors[:20], vectors[-1:], rng.standard_normal((60, 8)).astype(np.float32)])
    found = search(asked, stored(vectors, 8), k)
    units = vectors.astype(np.float64) / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = asked / np.linalg.norm(asked, axis=1, keepdims=True) @ units.T
    assert np.abs(found.similarities.numpy() - -np.sort(-cosines, axis=1)[:, :k]).max() < 1e-6
    assert all(len(set(row)) == k for row in found.rows.tolist())


def test_the_number_of_threads_changes_nothing():
    rng = np.random.default_rng(2)
    asked, vectors = rng.standard_normal((300, 32)), rng.standard_normal((4000, 32)).astype(np.float32)
    documents = stored(vectors, 32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = search(asked, documents, 20)
        torch.set_num_threads(2)
        together = search(asked, documents, 20)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone.rows, together.rows)
    assert torch.equal(alone.similarities, together.similarities)


@pytest.mark.parametrize("kind", ["float16", "int8"])
@pytest.mark.parametrize("queries", [1, 5])
def test_few_queries_of_a_smaller_format_need_no_copy_of_all_documents_in_float32(kind, queries):
    rng = np.random.default_rng(3)
    documents = stored(rng.standard_normal((60_000, 48), dtype=np.float32), 48, kind)
    asked = rng.standard_normal((queries, 48)).astype(np.float32)
    with torch.profiler.profile(profile_memory=True) as profile:
        found = search(asked, documents, 10)
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest <= 4 << 20, "a part of the documents, or the similarities"
    units = documents.codes.double() if documents.scales is None else documents.codes * documents.scales[:, None]
    expected = brute_force(asked, units.numpy(), 48)[:, :10]
    assert np.array_equal(found.rows.numpy(), expected)


@pytest.mark.parametrize("kind", ["float16", "int8"])
@pytest.mark.parametrize("listed", [10, 14, 80, 600])
def test_what_rounded_documents_find_is_known_from_any_list_of_the_nearest(kind, listed):
    rng = np.random.default_rng([4, listed])
    vectors = rng.standard_normal((600, 32)).astype(np.float32)
    vectors[300:] = vectors[:1] + 0.02 * rng.standard_normal((300, 32))  # so near that rounding reorders them
    asked = torch.from_numpy(vectors[::7] + 0.01 * rng.standard_normal((86, 32)).astype(np.float32))
    rounded = stored(vectors, 24, kind)
    near = search(asked, stored(vectors, 24), listed)
    found = search_rounded(asked, near, vectors, rounded, 10)
    units = rounded.codes.double() if rounded.scales is None else rounded.codes.double() * rounded.scales[:, None]
    cosines = torch.nn.functional.normalize(asked[:, :24].double()) @ units.T
    assert (cosines.gather(1, found) - cosines.topk(10).values).abs().max() < 1e-6


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=30), st.integers(0, 2**32 - 100))
def test_keys_sort_as_similarity_and_then_the_lower_row(values, first):
    similarities = torch.tensor(values)
    rows = torch.arange(first, first + len(values))
    order = knn.keys_of(similarities, rows).argsort(descending=True)
    expected = sorted(range(len(values)), key=lambda i: (-values[i], i))
    assert order.tolist() == expected


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), dim=st.integers(1, 64))
def test_formats_lose_what_they_must_and_take_the_bytes_they_say(seed, dim):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((50, 64)).astype(np.float32)
    units = vectors[:, :dim] / np.linalg.norm(vectors[:, :dim], axis=1, keepdims=True)
    for kind, size, error in (("float32", 4 * dim, 1e-6), ("float16", 2 * dim, 1e-3), ("int8", dim + 4, 2e-2)):
        documents = stored(vectors, dim, kind)
        restored = documents.codes.float().numpy()
        if documents.scales is not None:
            restored = restored * documents.scales.numpy()[:, None]
        # a code is off by half a step of the largest magnitude, at most 1; the whole vector by sqrt(d) times that
        assert np.linalg.norm(restored - units, axis=1).max() <= error * (1 if kind != "int8" else np.sqrt(dim))
        assert documents.bytes_per_document == size


@pytest.mark.parametrize("kind", KINDS)
def test_written_documents_have_the_size_they_say(tmp_path, kind):
    documents = stored(np.random.default_rng(0).standard_normal((1000, 64)), 64, kind)
    documents.write(tmp_path / "index.npz")
    assert (tmp_path / "index.npz").stat().st_size == documents.bytes_written
    assert 0 <= documents.bytes_written - 1000 * documents.bytes_per_document < 1000
    with np.load(tmp_path / "index.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["codes"], documents.codes.numpy())


def test_a_prefix_of_zeros_is_like_nothing():
    vectors = np.eye(8, dtype=np.float32)
    found = search(np.ones((1, 8)), stored(vectors, 4), 8)
    assert found.similarities[0].tolist() == pytest.approx([0.5] * 4 + [0.0] * 4)
    assert found.rows[0].tolist() == list(range(8))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda v: stored(v, 65), "65 dimensions"),
        (lambda v: stored(v, 8, "int4"), "int4"),
        (lambda v: stored(np.full((2, 8), np.nan), 8), "not finite"),
        (lambda v: search(v[:, :4], stored(v, 8), 1), "shorter"),
        (lambda v: search(v, stored(v, 8), 0), "k is 0"),
        (lambda v: search(v, stored(v[:0], 8), 1), "0 documents"),
        (lambda v: two_stage(v, stored(v, 8), stored(v[:3], 8), 5, 1), "5 documents to filter and 3"),
        (lambda v: two_stage(v, stored(v, 8), stored(v, 8), 2, 5), "2 candidates"),
    ],
)
def test_what_cannot_be_searched_is_said_with_a_way_out(call, said):
    with pytest.raises(PipelineError, match=said) as caught:
        call(np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32))
    assert caught.value.remedy


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("queries", [1, 4, 300])
@pytest.mark.parametrize("k", [1, 10, 500])
def test_a_gpu_finds_what_a_cpu_finds(kind, queries, k):
    vectors = exact_vectors(np.random.default_rng(3), 5000, 64)
    here = search(vectors[:queries], stored(vectors, 64, kind), k)
    there = search(vectors[:queries], stored(vectors, 64, kind, "cuda"), k)
    assert torch.equal(here.rows, there.rows.cpu())
    two = [
        two_stage(vectors[:queries], stored(vectors, 16, kind, at), stored(vectors, 64, device=at), 500, 10).rows
        for at in ("cpu", "cuda")
    ]
    assert torch.equal(two[0], two[1].cpu())


@pytest.mark.parametrize("k", [1, 700])
def test_no_query_finds_nothing(k):
    found = search(np.empty((0, 8), np.float32), stored(np.eye(8, dtype=np.float32), 8), k)
    assert found.rows.shape == found.similarities.shape == (0, min(k, 8))


def test_asking_how_far_rounding_moves_a_document_changes_none():
    vectors = np.random.default_rng(4).standard_normal((50, 16)).astype(np.float32)
    prefix = stored(vectors, 16).prefix(8)
    before = prefix.codes.clone()
    assert prefix.largest_rounding(vectors) < 1e-6
    assert torch.equal(prefix.codes, before)
