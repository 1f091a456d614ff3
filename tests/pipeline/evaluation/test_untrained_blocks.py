"""Untrained embeddings of many rows are made a block at a time, and are the same."""

import tracemalloc

import numpy as np
import pytest

from pipeline.evaluation import embeddings
from pipeline.evaluation.embeddings import BASELINES, _by_blocks


@pytest.mark.parametrize("name", BASELINES)
def test_blocks_change_nothing(monkeypatch, name):
    rows = np.random.default_rng(0).normal(size=(300, 12)).astype(np.float32)
    whole = BASELINES[name](rows)(rows)
    monkeypatch.setattr(embeddings, "_BLOCK", 70)
    np.testing.assert_allclose(_by_blocks(BASELINES[name](rows), 70)(rows), whole, atol=1e-6)


@pytest.mark.parametrize("name", ["features", "centred"])
def test_rows_are_normalised_in_the_processors_cache_and_to_the_bits_of_all_at_once(name):
    rows = np.random.default_rng(1).standard_normal((5000, 96)).astype(np.float32)
    rows[7] = 0
    wide = rows.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    units = (wide / np.where(norms > 0, norms, 1)).astype(np.float32)
    centre = units.astype(np.float64).sum(axis=0) / len(units)
    embed = BASELINES[name](rows)
    tracemalloc.start()
    made = embed(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(made, units if name == "features" else (units - centre).astype(np.float32))
    assert peak < 1.5 * made.nbytes, "no copy of all rows in float64"
