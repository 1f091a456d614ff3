"""Predictions made up to have the accuracies that a test asks for."""

import numpy as np

from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.scores import Identity

DIMS = (64, 128, 192, 256)


def identity(method="v5", seed=1, **more):
    """What a made-up score is of."""
    return Identity("r", "small", "minilm", 6, method, "paper", seed, **more)


def predicted(shares, *, texts=400, seed=0, protocol="gallery", gallery=100, dims=DIMS, origin=None):
    """Predictions about `texts` texts whose shares of correct ones are `shares` [J, L], spread at random by `seed`.

    Level 0 has two classes, level 1 four; a wrong answer is another class of the same parent.
    """
    rng = np.random.default_rng(seed)
    fine = np.arange(texts) % 4
    labels = np.stack([fine // 2, fine], axis=1)[:, -np.shape(shares)[1] :]
    predicted = np.repeat(labels[None], len(dims), axis=0)
    for j, row in enumerate(shares):
        for level, share in enumerate(row):
            wrong = rng.permutation(texts)[: round(texts * (1 - share))]
            predicted[j, wrong, level] ^= 1
    matching = np.where(predicted == labels, 4, 1)
    return Predictions(
        protocol=protocol,
        k=5,
        dims=dims,
        gallery=gallery,
        samples=1,
        labels=labels,
        query_index=np.arange(texts),
        predicted=predicted,
        matching=matching,
        origin=origin,
    )
