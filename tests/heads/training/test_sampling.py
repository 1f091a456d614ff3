"""Streams, positives and draws: who can be drawn, how often, and on what a draw depends."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heads.errors import HeadsError
from heads.training.sampling import Classes, DrawShape, Sampler, Streams

CPU = torch.device("cpu")
SHAPE = DrawShape(4, 2, (0.4, 0.3, 0.2, 0.1), (0.95, 0.9, 0.8, 0.7), (4, 12, 5), 0.1)


@settings(max_examples=80, deadline=None)
@given(fine=st.lists(st.integers(0, 6), min_size=4, max_size=30), uniform=st.floats(0, 1, exclude_max=True, width=32))
def test_a_positive_is_another_row_of_the_class_and_a_lone_row_no_anchor(fine, uniform):
    labels = torch.tensor([[f // 3, f] for f in fine])
    shared = {i for i, f in enumerate(fine) if fine.count(f) > 1}
    if len(shared) < 2:
        with pytest.raises(HeadsError):
            Classes(labels)
        return
    classes = Classes(labels)
    assert set(classes.anchors.tolist()) == shared
    for level in (0, 1):
        levels = torch.full_like(classes.anchors, level)
        partners = classes.partners(classes.anchors, levels, torch.full(levels.shape, uniform))
        assert (partners != classes.anchors).all()
        assert (labels[partners, level] == labels[classes.anchors, level]).all()


def test_every_other_row_of_a_class_is_equally_likely():
    classes = Classes(torch.tensor([[0, 0]] * 5 + [[0, 1]] * 2))
    row = torch.zeros(20_000, dtype=torch.int64)
    drawn = classes.partners(row, row + 1, torch.rand(20_000)).bincount(minlength=7)
    assert drawn[0] == 0 and drawn[5] == drawn[6] == 0
    assert (drawn[1:5] / 20_000 - 0.25).abs().max() < 0.02


def draws(seeds, chunks=(6,)):
    sampler = Sampler([Streams(seed, CPU) for seed in seeds], torch.arange(30), SHAPE)
    sampler.new_epoch()
    parts, first = [], 0
    for steps in chunks:
        parts.append(sampler.draw(first, steps))
        first += steps
    return [torch.cat(field) for field in zip(*parts, strict=True)]


def test_a_seed_draws_the_same_beside_others_and_in_other_portions():
    for alone, beside, portions in zip(draws([7]), draws([3, 7, 11]), draws([7], (1, 3, 2)), strict=True):
        assert torch.equal(alone[:, 0], beside[:, 1])
        assert torch.equal(alone, portions)


def test_an_epoch_visits_anchors_once_and_another_seed_in_another_order():
    one, two = (draws([seed])[0].flatten().tolist() for seed in (1, 2))
    assert len(set(one)) == len(one) == 24
    assert one != two


def test_frequencies_are_those_of_the_table():
    shape = SHAPE._replace(batch=100)
    sampler = Sampler([Streams(0, CPU)], torch.arange(20_000), shape)
    sampler.new_epoch()
    drawn = sampler.draw(0, 200)
    frequency = drawn.prefixes.flatten().bincount(minlength=4) / drawn.prefixes.numel()
    assert torch.allclose(frequency, torch.tensor(SHAPE.prefix_probabilities), atol=0.015)
    assert torch.allclose(drawn.kept.float().mean((0, 1, 2)), torch.tensor(SHAPE.keep_probabilities), atol=0.015)
    assert drawn.kept.any(-1).all()
    assert drawn.dropout.unique().tolist() == pytest.approx([0, 1 / 0.9])
    assert float(drawn.dropout.mean()) == pytest.approx(1, abs=0.02)


def test_global_generators_are_neither_read_nor_changed():
    def states():
        legacy = np.random.get_state()  # noqa: NPY002 - the global state is what is looked at
        return random.getstate(), legacy[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    first = draws([5])
    assert states() == before
    torch.manual_seed(99)
    assert all(torch.equal(a, b) for a, b in zip(first, draws([5]), strict=True))


def test_a_negative_seed_is_refused():
    with pytest.raises(HeadsError, match="-1"):
        Streams(-1, CPU)
