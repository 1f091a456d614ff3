"""Nearest neighbours and votes against plain loops, with real ties, at every boundary of tiles and blocks."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from heads.errors import HeadsError
from heads.knn import growing_neighbours, prefix_lengths, prefix_neighbours, resident, tile_scan, vote
from heads.knn import search as knn

GRID = 2.0**24


def slow_neighbours(queries, gallery, lengths, k, own):
    """Every pair, one at a time: cosine in float64, to the nearest 2^-24; ties to the lower row."""
    indices, similarities = [], []
    for length, (i, query) in product(lengths, enumerate(queries.astype(float))):
        ranked = []
        for row, other in enumerate(gallery.astype(float)):
            if own and row == i:
                continue
            a, b = query[:length], other[:length]
            norms = np.sqrt((a @ a) * (b @ b))
            cosine = round((a @ b) / norms * GRID) / GRID if norms else 0.0
            ranked.append((-cosine, row))
        ranked = sorted(ranked)[:k]
        indices.append([row for _, row in ranked])
        similarities.append([-negative for negative, _ in ranked])
    shape = (len(lengths), len(queries), -1)
    return np.array(indices).reshape(shape), np.array(similarities, np.float32).reshape(shape)


def equals_slow(found, queries, gallery, lengths, k, own=False):
    """Hold what was found to `slow_neighbours`; return that."""
    expected = slow_neighbours(queries, gallery, lengths, k, own)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    return expected


def slow_vote(indices, similarities, labels):
    """Most votes, then the larger summed similarity, then the lower label."""
    result = np.empty((*indices.shape[:2], labels.shape[1]), np.int64)
    for j, q, level in np.ndindex(result.shape):
        votes, sums = {}, {}
        for row, similarity in zip(indices[j, q], similarities[j, q], strict=True):
            label = int(labels[row, level])
            votes[label] = votes.get(label, 0) + 1
            sums[label] = sums.get(label, 0.0) + float(similarity)
        result[j, q, level] = min(votes, key=lambda label: (-votes[label], -sums[label], label))
    return result


@pytest.fixture
def small_tiles(monkeypatch):
    """Boundaries of blocks, parts, tiles and runs within a few rows."""
    monkeypatch.setattr(knn, "_QUERIES", 7)
    monkeypatch.setattr(tile_scan, "_PART", 3)
    monkeypatch.setattr(tile_scan, "_FIRST_COLUMNS", {"cpu": 2, "cuda": 2})
    monkeypatch.setattr(tile_scan, "_COLUMNS", {"cpu": 8, "cuda": 8})
    monkeypatch.setattr(tile_scan, "RUN", 3)


small_integers = st.integers(-1, 2)


DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")),
]


@st.composite
def tied_problems(draw):
    """Few small integers in few dimensions: many equal cosines, multiples of one another, rows of zeros."""
    dim = draw(st.sampled_from([2, 4, 6]))
    gallery = draw(arrays(np.float32, (draw(st.integers(2, 40)), dim), elements=small_integers))
    own = draw(st.booleans())
    count = draw(st.integers(1, 18))
    queries = gallery[:count] if own else draw(arrays(np.float32, (count, dim), elements=small_integers))
    return queries, gallery, draw(st.sampled_from([1, 2, dim])), draw(st.integers(1, 45)), own


class TestNeighbours:
    @settings(deadline=None, max_examples=150)
    @given(problem=tied_problems())
    @pytest.mark.parametrize("tiles", ["as they are", "small"])
    @pytest.mark.parametrize("device", DEVICES)
    def test_equal_the_double_loop_ties_included(self, tiles, device, problem, request):
        if tiles == "small":
            request.getfixturevalue("small_tiles")
        queries, gallery, width, k, own = problem
        found = prefix_neighbours(queries, gallery, width, k, exclude="same-row" if own else None, device=device)
        lengths = range(width, queries.shape[1] + 1, width)
        indices, similarities = equals_slow(found, queries, gallery, lengths, k, own)
        labels = np.stack([np.arange(len(gallery)) % 2, np.arange(len(gallery)) % 5], axis=1)
        np.testing.assert_array_equal(vote(*found, labels), slow_vote(indices, similarities, labels))

    @settings(deadline=None, max_examples=60)
    @given(problem=tied_problems(), sizes=st.sets(st.integers(1, 40), min_size=1), seed=st.integers(0, 3))
    def test_galleries_that_grow_give_what_each_gives_by_itself(self, problem, sizes, seed):
        queries, gallery, width, k, own = problem
        queries, exclude = (gallery, "same-row") if own else (queries, None)
        order = np.random.default_rng(seed).permutation(len(gallery))
        sizes = sorted(size for size in sizes if size <= len(gallery) - own)
        found = growing_neighbours(queries, gallery, order, sizes, width, k, exclude=exclude)
        for size, near in zip(sizes, found, strict=True):
            for i in range(len(queries)):
                rows = np.sort([row for row in order[: size + own] if not (own and row == i)][:size])
                alone = prefix_neighbours(queries[i : i + 1], gallery[rows], width, k)
                np.testing.assert_array_equal(near.indices[:, i], rows[alone.indices[:, 0]])
                np.testing.assert_array_equal(near.similarities[:, i], alone.similarities[:, 0])

    def test_equal_the_double_loop_where_vectors_are_what_heads_make(self):
        rng = np.random.default_rng(0)
        gallery = rng.standard_normal((400, 24), dtype=np.float32)
        gallery[200:210] = gallery[3]
        gallery[300] = 2 * gallery[4]
        queries = np.concatenate([gallery[[3, 4, 17]], rng.standard_normal((20, 24), dtype=np.float32)])
        found = prefix_neighbours(queries, gallery, (5, 8, 23), 13)
        equals_slow(found, queries, gallery, (5, 8, 23), 13)
        assert found.indices[2, 0].tolist()[:11] == [3, *range(200, 210)]
        assert found.indices[2, 1].tolist()[:2] == [4, 300]

    @pytest.mark.parametrize("spread", [1e-3, 1e-4, 1e-5])
    @pytest.mark.parametrize("precision", ["highest", "medium"])
    @pytest.mark.parametrize("device", DEVICES)
    def test_rows_nearer_to_each_other_than_float32_can_tell(self, spread, precision, device):
        """300 rows around one direction: their cosines with a query differ by a few 2^-24."""
        rng = np.random.default_rng(5)
        centre = rng.standard_normal(96)
        gallery = (centre + spread * rng.standard_normal((300, 96))).astype(np.float32)
        queries = (centre + spread * rng.standard_normal((20, 96))).astype(np.float32)
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        found = prefix_neighbours(queries, gallery, (32, 96), 5, device=device)
        assert torch.get_float32_matmul_precision() == precision
        torch.set_float32_matmul_precision(before)
        equals_slow(found, queries, gallery, (32, 96), 5)

    @pytest.mark.parametrize(
        "lay", [np.asfortranarray, lambda x: x[::-1], lambda x: x[::3], np.float16, torch.from_numpy]
    )
    @pytest.mark.parametrize("device", DEVICES)
    def test_a_gallery_however_it_lies_in_memory(self, lay, device, monkeypatch):
        monkeypatch.setattr(resident, "_BUFFER_BYTES", 200)  # a few rows of it
        rows = np.random.default_rng(7).standard_normal((90, 8), dtype=np.float32)
        gallery = lay(rows)
        found = prefix_neighbours(rows[:9], gallery, 4, 6, device=device)
        equals_slow(found, rows[:9], np.asarray(gallery), (4, 8), 6)

    @pytest.mark.parametrize("device", DEVICES)
    def test_a_prefix_too_short_for_float32(self, device):
        rng = np.random.default_rng(6)
        scale = np.where(np.arange(12) < 4, 1e-25, 1.0)
        queries, gallery = rng.standard_normal((9, 12)) * scale, rng.standard_normal((50, 12)) * scale
        found = prefix_neighbours(queries, gallery, 4, 6, device=device)
        equals_slow(found, queries, gallery, (4, 8, 12), 6)

    @pytest.mark.parametrize("device", DEVICES)
    def test_many_rows_over_many_real_tiles(self, device):
        rng = np.random.default_rng(1)
        queries = rng.standard_normal((600, 16), dtype=np.float32)
        gallery = rng.standard_normal((5000, 16), dtype=np.float32)
        found = prefix_neighbours(queries, gallery, 4, 7, device=device)
        for j in range(4):
            a, b = (x[:, : 4 * j + 4].astype(float) for x in (queries, gallery))
            cosines = a @ b.T / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)
            units = np.round(cosines * GRID)
            order = np.argsort(-units, axis=1, kind="stable")[:, :7]
            np.testing.assert_array_equal(found.indices[j], order)

    @pytest.mark.parametrize("scale", [1e-30, 1e30])
    def test_length_does_not_matter(self, scale):
        rng = np.random.default_rng(3)
        queries, gallery = rng.standard_normal((9, 8)), rng.standard_normal((50, 8))
        plain, scaled = prefix_neighbours(queries, gallery, 4, 6), prefix_neighbours(queries * scale, gallery, 4, 6)
        np.testing.assert_array_equal(plain.indices, scaled.indices)

    @pytest.mark.parametrize("rows", [1, 65])
    def test_rows_in_reverse(self, rows):
        """The last tile may be one row, which numpy calls contiguous whatever its stride."""
        gallery = np.random.default_rng(7).standard_normal((rows, 8), dtype=np.float32)
        turned = np.ascontiguousarray(gallery[::-1])[::-1]
        expected = prefix_neighbours(gallery, gallery, 4, 3)
        np.testing.assert_array_equal(prefix_neighbours(turned, turned, 4, 3).indices, expected.indices)

    def test_more_neighbours_than_rows_are_all_rows(self):
        gallery = np.eye(3, dtype=np.float32)
        assert prefix_neighbours(gallery, gallery, 3, 10).indices.shape == (1, 3, 3)
        assert prefix_neighbours(gallery, gallery, 3, 10, exclude="same-row").indices.shape == (1, 3, 2)

    def test_tensors_arrays_and_every_repetition_give_the_same_bits(self):
        rng = np.random.default_rng(4)
        queries, gallery = rng.standard_normal((700, 32)), rng.standard_normal((3000, 32))
        first = prefix_neighbours(queries, gallery, 8, 5)
        again = prefix_neighbours(torch.from_numpy(queries).requires_grad_(), torch.from_numpy(gallery), 8, 5)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        alone = prefix_neighbours(queries, gallery, 8, 5)
        torch.set_num_threads(threads)
        for other in (again, alone):
            np.testing.assert_array_equal(first.indices, other.indices)
            np.testing.assert_array_equal(first.similarities, other.similarities)

    def test_threads_to_come_are_left_as_they_were_after_an_error(self):
        before = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            with pytest.raises(HeadsError, match="not finite"):
                prefix_neighbours(np.full((2, 4), np.nan, np.float32), np.ones((3, 4), np.float32), 4, 1)
            with ThreadPoolExecutor(1) as later:
                assert later.submit(torch.get_num_threads).result() == 2
        finally:
            torch.set_num_threads(before)

    @pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int64])
    def test_any_real_dtype(self, dtype):
        gallery = np.arange(-6, 6).reshape(4, 3).astype(dtype)
        expected = prefix_neighbours(gallery.astype(np.float32), gallery.astype(np.float32), 1, 2)
        np.testing.assert_array_equal(prefix_neighbours(gallery, gallery, 1, 2).indices, expected.indices)

    def test_memory_does_not_grow_with_the_gallery(self):
        """Peak memory of a process that searches 20 times the gallery, read from a memory map."""
        program = (
            "import resource, sys, tempfile, numpy as np\n"
            "from heads.knn import prefix_neighbours\n"
            "rows = int(sys.argv[1])\n"
            "with tempfile.NamedTemporaryFile() as file:\n"
            "    gallery = np.memmap(file, np.float16, 'w+', shape=(rows, 8))\n"
            "    gallery[:] = np.random.default_rng(0).standard_normal((rows, 8), dtype=np.float32)\n"
            "    found = prefix_neighbours(np.random.default_rng(1).standard_normal((256, 8)), gallery, 4, 5)\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - gallery.nbytes * 3)\n"
        )
        peaks = [
            int(subprocess.run([sys.executable, "-c", program, str(rows)], check=True, capture_output=True).stdout)
            for rows in (20_000, 400_000)
        ]
        assert peaks[1] - peaks[0] < 20 << 20  # a row of similarities a query would be 800 MB


class TestAgainstScikitLearn:
    """scikit-learn agrees wherever definitions coincide: no ties among similarities, none among votes."""

    @pytest.mark.parametrize("k", [1, 5, 12])
    def test_same_neighbours_and_same_majorities(self, k):
        from sklearn.neighbors import KNeighborsClassifier

        rng = np.random.default_rng(k)
        queries, gallery = rng.standard_normal((300, 16)), rng.standard_normal((900, 16))
        labels = rng.integers(0, 4, (900, 2))
        found = prefix_neighbours(queries, gallery, 4, k)
        ours = vote(*found, labels)
        for j, length in enumerate((4, 8, 12, 16)):
            for level in (0, 1):
                theirs = KNeighborsClassifier(k, metric="cosine", algorithm="brute")
                theirs.fit(gallery[:, :length], labels[:, level])
                nearest = theirs.kneighbors(queries[:, :length], return_distance=False)
                np.testing.assert_array_equal(found.indices[j], nearest)
                counts = np.apply_along_axis(np.bincount, 1, labels[nearest, level], minlength=4)
                clear = (counts == counts.max(axis=1, keepdims=True)).sum(axis=1) == 1
                assert clear.mean() > 0.5
                predicted = theirs.predict(queries[:, :length])
                np.testing.assert_array_equal(ours[j, clear, level], predicted[clear])


class TestVote:
    @settings(deadline=None, max_examples=150)
    @given(data=st.data())
    def test_equals_the_loop(self, data):
        k, rows = data.draw(st.integers(1, 9)), 12
        indices = data.draw(arrays(np.int64, (2, 6, k), elements=st.integers(0, rows - 1)))
        units = data.draw(arrays(np.int64, (2, 6, k), elements=st.integers(-2, 2)))
        labels = data.draw(arrays(np.int64, (rows, 3), elements=st.integers(0, 3)))
        similarities = (units / 2).astype(np.float32)
        np.testing.assert_array_equal(vote(indices, similarities, labels), slow_vote(indices, similarities, labels))

    def test_many_neighbours_are_counted_in_parts(self, monkeypatch):
        monkeypatch.setattr(knn, "_BALLOTS", 7 * 30)
        rng = np.random.default_rng(5)
        indices, labels = rng.integers(0, 50, (2, 40, 30)), rng.integers(0, 5, (50, 2))
        similarities = np.round(rng.random((2, 40, 30)) * GRID).astype(np.float32) / np.float32(GRID)
        np.testing.assert_array_equal(vote(indices, similarities, labels), slow_vote(indices, similarities, labels))


class TestBadInput:
    good = np.eye(4, dtype=np.float32)

    @pytest.mark.parametrize(
        ("call", "problem"),
        [
            (lambda good: prefix_neighbours(good, good[:, :3], 1, 1), r"\(4, 4\).*\(4, 3\)"),
            (lambda good: prefix_neighbours(good[0], good, 1, 1), r"\(4,\)"),
            (lambda good: prefix_neighbours(good, good, 3, 1), "blocks of 3 .* 4"),
            (lambda good: prefix_neighbours(good, good, 0, 1), "blocks of 0"),
            (lambda good: prefix_neighbours(good, good, (2, 2), 1), "2, 2"),
            (lambda good: prefix_neighbours(good, good, (2, 5), 1), "2, 5"),
            (lambda good: prefix_neighbours(good, good, (), 1), "no dimensions"),
            (lambda good: prefix_neighbours(good, good, 2, 0), "k is 0"),
            (lambda good: prefix_neighbours(good, good[:0], 2, 1), "gallery of 0"),
            (lambda good: prefix_neighbours(good[:0], good, 2, 1), "no query"),
            (lambda good: prefix_neighbours(good[:1], good[:1], 2, 1, exclude="same-row"), "gallery of 1"),
            (lambda good: prefix_neighbours(good, good[:3], 2, 1, exclude="same-row"), "4 queries"),
            (lambda good: prefix_neighbours(good, np.where(good, np.nan, good), 2, 1), "gallery row 0"),
            (lambda good: prefix_neighbours(good + np.array([[0], [0], [np.inf], [0]]), good, 2, 1), "query 2"),
        ],
    )
    def test_is_refused_in_one_line_with_a_remedy(self, call, problem):
        with pytest.raises(HeadsError, match=problem) as caught:
            call(self.good)
        assert "\n" not in str(caught.value)
        assert caught.value.remedy

    def test_lengths(self):
        assert prefix_lengths(64, 256) == (64, 128, 192, 256)
        assert prefix_lengths((64, 128, 768), 1024) == (64, 128, 768)
