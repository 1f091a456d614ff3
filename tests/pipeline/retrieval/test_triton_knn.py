"""The kernels for one query against the search of several: on a GPU, else in Triton's interpreter, if it is there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed; it comes with torch's CUDA builds")

from pipeline.retrieval.knn import search
from pipeline.retrieval.quantization import KINDS, stored
from pipeline.retrieval.triton_knn import can_search, search_one
from tests.triton_interpreter import DEVICE, can_run, interpreted, starts_it


@starts_it
def test_they_hold_in_the_interpreter():
    assert "19 passed" in interpreted(__file__)


def signs(rng: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    """Vectors of zeros with a quarter of +-1: float32 holds their cosines exactly, so that many tie."""
    vectors = np.zeros((rows, dim), np.float32)
    for row in vectors:
        row[rng.permutation(dim)[: dim // 4]] = rng.choice([-1.0, 1.0], dim // 4)
    return vectors


@can_run
@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("dim", [16, 64])
@pytest.mark.parametrize("documents", [1, 255, 3000])
def test_they_find_what_the_search_on_a_cpu_finds_ties_included(kind, dim, documents):
    rng = np.random.default_rng(documents)
    vectors, query = signs(rng, documents, dim), signs(rng, 1, dim)
    for k in (1, 3, 16, 17, 46):
        if not can_search(stored(vectors, dim, kind), k := min(k, documents)):
            continue
        expected = search(query, stored(vectors, dim, kind), k)
        rows, values, length = search_one(torch.from_numpy(query).to(DEVICE), stored(vectors, dim, kind, DEVICE), k)
        assert torch.equal(rows.cpu(), expected.rows)
        assert torch.allclose(values.cpu(), expected.similarities, atol=1e-6)
        assert float(length) == pytest.approx(np.linalg.norm(query))


@can_run
def test_a_prefix_without_a_copy_and_queries_of_nothing():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((500, 64)).astype(np.float32)
    prefix = stored(vectors, 64, device=DEVICE).prefix(24)
    rows, values, _ = search_one(torch.from_numpy(vectors[:1]).to(DEVICE), prefix, 5)
    expected = search(vectors[:1], stored(vectors, 24), 5)
    assert torch.equal(rows.cpu(), expected.rows)
    assert torch.allclose(values.cpu(), expected.similarities, atol=1e-6)
    rows, values, length = search_one(torch.zeros((1, 64), device=DEVICE), prefix, 5)
    assert (rows.tolist(), values.tolist(), float(length)) == ([[0, 1, 2, 3, 4]], [[0.0] * 5], 0.0)
    assert np.isnan(float(search_one(torch.full((1, 64), torch.nan, device=DEVICE), prefix, 5)[2]))
