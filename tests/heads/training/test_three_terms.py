"""A step's loss and gradient, method by method, against the design told as loops over samples."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from heads import network
from heads.methods import METHODS, keep_probabilities, prefix_probabilities
from heads.presets import PRESETS, HeadShape
from heads.training.joint import Joint
from heads.training.sampling import Classes, DrawShape, Sampler, Streams
from heads.training.three_terms import ThreeTerms
from heads.training.trainer import part_of
from tests.heads.conftest import clusters
from tests.heads.reference import PlainHead, Step

BATCH = 8
CPU = torch.device("cpu")


def a_shape(method, classes, name="paper"):
    row = replace(PRESETS[name], width=PRESETS[name].width and 24, scale_dim=8)
    return HeadShape.of(row, 16, classes, proxy_temperature=METHODS[method].settings.get("proxy_temperature"))


def an_objective(method, shape, labels, classes):
    row = METHODS[method]
    if row.supervise is None:
        return Joint(row.settings, shape, labels, classes)
    return ThreeTerms(row.supervise(shape.scales, labels.shape[1]), shape, labels, classes)


def a_drawn_step(objective, shape, classes, seeds):
    """Draws of one step, [1, S, ...], as a fit draws them but for stronger dropout."""
    sizes = DrawShape(
        BATCH,
        objective.positives,
        prefix_probabilities(shape.scales),
        keep_probabilities(shape.scales),
        (shape.scales, objective.rows_for(BATCH), shape.hidden) if shape.transformer else None,
        0.3,
    )
    sampler = Sampler([Streams(seed, CPU) for seed in seeds], classes.anchors, sizes)
    sampler.new_epoch()
    return sampler.draw(0, 1)


def of_seed(draws, s):
    """What one seed drew for the one step."""
    return type(draws)(*(None if field is None else field[0, s] for field in draws))


def off(found, expected):
    """Distance relative to what is expected; an expected zero must be zero."""
    found, expected = found.double(), expected.double()
    length = float(expected.norm())
    return float((found - expected).norm()) / length if length else float(found.norm())


@pytest.mark.parametrize("seeds", [(3,), (3, 4)])  # pairs on a list, and triples as on a GPU
@pytest.mark.parametrize("branching", [(2, 2), (2, 2, 2)])
@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if not row.closed_form])
def test_loss_and_gradient_of_a_step_are_those_of_the_design(method, branching, seeds):
    check_a_step(method, *clusters(40, branching=branching), seeds)


@pytest.mark.parametrize("seeds", [(3,), (3, 4)])
@pytest.mark.parametrize("method", ["v5", "mrl", "uniform", "joint"])
def test_rows_without_finer_labels_are_masked_where_they_have_none(method, seeds):
    features, labels = clusters(40)
    labels[labels[:, 2] % 4 == 1, 2] = -1
    labels[labels[:, 1] == 3, 1:] = -1
    check_a_step(method, features, labels, seeds)


def check_a_step(method, features, labels, seeds):
    """Compare a step's loss and gradients with loops over samples."""
    features, labels = torch.from_numpy(features), torch.from_numpy(labels)
    shape = a_shape(method, tuple(int(count) for count in labels.max(0).values + 1))
    classes = Classes(labels)
    objective = an_objective(method, shape, labels, classes)
    draws = a_drawn_step(objective, shape, classes, seeds)
    batch = part_of(objective.prepare(draws), 0)
    flat = network.initial_weights(shape, [Streams(seed, CPU) for seed in seeds])
    flat += 0.1 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(1))
    flat.requires_grad_()
    tensors = network.named(flat if len(seeds) > 1 else flat[0], shape)
    units = features / features.norm(dim=1, keepdim=True)
    outputs = network.forward(tensors, shape, units[batch.rows], batch.dropout)
    found = objective.losses(tensors, outputs, batch, slice(0, outputs.shape[1]))
    found.sum().backward()

    for s in range(len(seeds)):
        plain = PlainHead(shape).double().take(network.named(flat[s].detach(), shape))
        step = Step(method, features.double(), labels, of_seed(draws, s))
        expected = step.loss(plain)
        expected.backward()
        assert batch.rows[s].tolist() == step.rows
        assert off(found[s].detach(), expected.detach()) < 1e-5
        own = network.named(flat.grad[s], shape)
        for name, gradient in plain.gradients(own).items():
            assert off(own[name], gradient) < 1e-5, name


def test_what_parts_of_the_rows_add_to_the_loss_of_joint_is_the_whole():
    features, labels = (torch.from_numpy(array) for array in clusters(40, branching=(2, 2, 2)))
    shape = a_shape("joint", tuple(int(count) for count in labels.max(0).values + 1))
    classes = Classes(labels)
    objective = an_objective("joint", shape, labels, classes)
    batch = part_of(objective.prepare(a_drawn_step(objective, shape, classes, (3, 4))), 0)
    tensors = network.named(network.initial_weights(shape, [Streams(seed, CPU) for seed in (3, 4)]), shape)
    outputs = network.forward(tensors, shape, features[batch.rows], batch.dropout)
    whole, *parts = (
        objective.losses(tensors, outputs, batch, slice(first, last)) for first, last in ((0, 16), (0, 5), (5, 16))
    )
    assert float(parts[0].min()) > 0
    torch.testing.assert_close(parts[0] + parts[1], whole)


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if row.supervise is not None])
def test_levels_without_a_gradient_are_those_that_count_as_unsupervised(method):
    labels = torch.from_numpy(clusters(40)[1])
    classes, shape = Classes(labels), a_shape(method, (3, 6, 12))
    expected = {"mrl": (False, False, True), "no-prefix": (True, False, True)}.get(method, (True, True, True))
    assert an_objective(method, shape, labels, classes).supervised == expected
