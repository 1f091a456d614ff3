"""Untrained embeddings of many rows are made a block at a time, and are the same."""

import numpy as np
import pytest

from pipeline.evaluation import embeddings
from pipeline.evaluation.embeddings import BASELINES, _by_blocks


@pytest.mark.parametrize("name", BASELINES)
def test_blocks_change_nothing(monkeypatch, name):
    rows = np.random.default_rng(0).normal(size=(300, 12)).astype(np.float32)
    whole = BASELINES[name](rows)(rows)
    monkeypatch.setattr(embeddings, "_BLOCK", 70)
    np.testing.assert_allclose(_by_blocks(BASELINES[name](rows))(rows), whole, atol=1e-6)
