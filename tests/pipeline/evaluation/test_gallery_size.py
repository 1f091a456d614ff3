"""Where two methods cross as the gallery grows."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from pipeline.evaluation.gallery_size import crossing, size_effects
from tests.pipeline.evaluation.predicted import identity, predicted

AHEAD = {500: 0.05, 1000: 0.0, 2000: -0.05}
"""By how much v5 is ahead on level 0 at 64 dims, by gallery size."""


def cells(seeds=(1, 2, 3)):
    made = []
    for origin in ("train", "held-out"):
        for size, lead in AHEAD.items():
            for seed in seeds:
                for method, coarse in (("v5", 0.9 + lead), ("mrl", 0.9)):
                    jitter = np.random.default_rng([seed, method == "v5"]).uniform(-0.01, 0.01)
                    shares = [[coarse + jitter, 0.7]] + [[0.9, 0.8]] * 3
                    predictions = predicted(shares, texts=2000, seed=seed, gallery=size, origin=origin)
                    made.append(predictions.score(identity(method, seed)))
    return made


def test_differences_are_paired_by_seed():
    given = cells()
    effects = size_effects(given, "v5", "mrl")
    assert [(e.origin, e.level, e.gallery) for e in effects] == [
        (origin, level, size) for origin in ("train", "held-out") for level in (0, 1) for size in AHEAD
    ]
    for effect in effects:
        a, b = (
            [
                cell.prefixes[0].levels[effect.level].accuracy
                for cell in given
                if (cell.identity.method, cell.origin, cell.gallery) == (method, effect.origin, effect.gallery)
            ]
            for method in ("v5", "mrl")
        )
        assert effect.n == 3
        assert effect.difference == pytest.approx(np.mean(a) - np.mean(b))
        if np.ptp(np.subtract(a, b)) > 0:
            expected = scipy.stats.ttest_rel(a, b).confidence_interval(0.95)
            assert effect.ci95 == pytest.approx(tuple(expected))


def test_the_share_of_own_labels_is_that_of_the_neighbours():
    effect = size_effects(cells(), "v5", "mrl")[0]
    # neighbours of right answers agree 4 of 5 times, of wrong ones once
    assert effect.precision_b == pytest.approx(0.9 * 0.8 + 0.1 * 0.2, abs=0.01)


def test_it_is_said_who_leads_where():
    said = crossing(size_effects(cells(), "v5", "mrl"), "v5", "mrl", ("domain", "intent"))
    assert said[0] == (
        "On domain at 64 dims, train rows as gallery: v5 leads at 500 rows; mrl leads at 2,000 rows; neither at 1,000."
    )


def test_one_seed_leads_nowhere():
    effects = size_effects(cells(seeds=(1,)), "v5", "mrl")
    assert {effect.leader for effect in effects} == {0}
    assert effects[0].ci95 is None
    (said,) = crossing(effects, "v5", "mrl", ("domain", "intent"))
    assert said.startswith("With one seed")
