"""A small hierarchy of classes that features tell apart, for fits of a second."""

from __future__ import annotations

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Small tests on shared cores: the library's threads would wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def clusters(rows, dim=16, branching=(3, 2, 2), seed=0, noise=0.5):
    """Features [rows, dim] float32 and labels [rows, L]: nested Gaussian clusters."""
    rng = np.random.default_rng(seed)
    finest = int(np.prod(branching))
    labels = [rng.integers(0, finest, rows)]
    for children in branching[:0:-1]:
        labels.insert(0, labels[0] // children)
    labels = np.stack(labels, 1)
    features = noise * rng.normal(size=(rows, dim))
    for level, count in enumerate(np.cumprod(branching)):
        centres = np.random.default_rng(level).normal(size=(count, dim)) / (level + 1)
        features += centres[labels[:, level]]
    return features.astype(np.float32), labels


@pytest.fixture(scope="session")
def two_levels():
    return clusters(240, branching=(3, 3)), clusters(90, branching=(3, 3), seed=1)


@pytest.fixture(scope="session")
def three_levels():
    return clusters(240), clusters(90, seed=1)
