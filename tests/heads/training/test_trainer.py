"""The fit loop against a plain one: modules, losses as loops, autograd, torch's AdamW, a seed at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from heads import network
from heads.errors import HeadsError
from heads.methods import METHODS, hyperparameters, keep_probabilities, prefix_probabilities
from heads.presets import PRESETS, HeadShape
from heads.training.inputs import checked_inputs
from heads.training.sampling import Classes, DrawShape, Sampler, Streams
from heads.training.trainer import Trainer, part_of
from tests.heads.conftest import clusters
from tests.heads.reference import PlainHead, Step, clipped_adamw

CPU = torch.device("cpu")
POSITIVES = {"v5": 2, "joint": 1}
SEEDS = (5, 7)


def a_trainer(method, seeds, *, rows=90, head="paper", batch=4, epochs=10, lr=1e-4):
    """A Trainer of a narrow head on a small hierarchy, what it trains on, and with what settings."""
    inputs = checked_inputs(*clusters(rows, branching=(3, 3)), None, CPU)
    row = replace(PRESETS[head], width=PRESETS[head].width and 16, scale_dim=4)
    proxy_temperature = METHODS[method].settings.get("proxy_temperature")
    shape = HeadShape.of(row, 16, inputs.classes, proxy_temperature=proxy_temperature)
    settings = hyperparameters(method, epochs=epochs, batch_size=batch, lr=lr, schedule="constant")
    return Trainer(inputs, METHODS[method], shape, list(seeds), settings), inputs, shape, settings


def trained(trainer, epochs):
    for epoch in range(1, epochs + 1):
        trainer.epoch(epoch, lambda steps, loss: None)
    return trainer


def a_sampler(method, shape, streams, labels, batch):
    """What a seed draws, on its own."""
    positives = POSITIVES[method]
    dropout = (shape.scales, (1 + positives) * batch, shape.hidden) if shape.transformer else None
    keep = keep_probabilities(shape.scales)
    sizes = DrawShape(batch, positives, prefix_probabilities(shape.scales), keep, dropout, shape.dropout)
    return Sampler([streams], Classes(labels).anchors, sizes)


def plain_fit(method, seed, inputs, shape, settings):
    """One seed's head after a plain loop in float64, the loss of every step and the length of its gradient."""
    streams = Streams(seed, CPU)
    start = network.named(network.initial_weights(shape, [streams]), shape)
    head = PlainHead(shape).double().take({name: tensor[0] for name, tensor in start.items()})
    sampler = a_sampler(method, shape, streams, inputs.labels, settings["batch_size"])
    step, losses, lengths = clipped_adamw(head, settings["lr"]), [], []
    for _ in range(settings["epochs"]):
        sampler.new_epoch()
        draws = sampler.draw(0, sampler.steps)
        for n in range(sampler.steps):
            drawn = type(draws)(*(None if field is None else field[n, 0] for field in draws))
            loss = Step(method, inputs.features.double(), inputs.labels, drawn).loss(head)
            losses.append(float(loss.detach()))
            lengths.append(step(loss))
    return head, losses, lengths


@pytest.mark.parametrize(
    ("method", "rows", "epochs", "steps"),
    [("v5", 120, 2, 80), pytest.param("v5", 120, 5, 200, marks=pytest.mark.slow), ("joint", 30, 3, 27)],
)
def test_the_steps_of_two_seeds_at_once_are_those_of_a_plain_loop_for_each(method, rows, epochs, steps):
    """80 or 200 steps of v5, as far as loops over samples go in seconds, and 27 of joint.

    Float32 rounds a weight near 1 twice a step (decay, update) by up to 6e-8: what the reference, in float64, may be
    off by. 200 steps move weights by 1e-2; of that, weight decay alone by 2e-4.
    """
    batch = 3
    together, inputs, shape, settings = a_trainer(method, SEEDS, rows=rows, batch=batch, epochs=epochs)
    trained(together, epochs)
    assert together.steps * epochs == steps
    first = network.named(network.initial_weights(shape, [Streams(seed, CPU) for seed in SEEDS]), shape)
    for s, seed in enumerate(SEEDS):
        alone = trained(a_trainer(method, [seed], rows=rows, batch=batch, epochs=epochs)[0], epochs)
        head, losses, lengths = plain_fit(method, seed, inputs, shape, settings)
        assert max(lengths) > 1.5 * min(lengths) > 1.5  # so that clipping to 1 changes how much each step weighs
        for flat, history in ((together.flat[s], together.histories[s]), (alone.flat[0], alone.histories[0])):
            for name, tensor in network.named(flat[None], shape).items():
                parameter, part = head.parts(name)
                expected = parameter[part].detach()
                assert float((tensor[0].double() - expected).abs().max()) < 1.2e-7 * steps + 2e-6, name
                assert float((first[name][s].double() - expected).abs().max()) > 1e-5 * steps, name
            means = np.reshape(losses, (epochs, -1)).mean(1)
            np.testing.assert_allclose([row["loss"] for row in history], means, rtol=1e-5)


def test_each_seed_s_gradient_is_clipped_to_length_one_by_itself():
    """One head's weights are a thousand times larger: as all of joint's losses see directions alone, its gradient is
    a thousand times shorter than the other's, and below 1.
    """
    trainer, inputs, shape, _ = a_trainer("joint", SEEDS, head="linear")
    trainer.flat[1] *= 1000
    tensors = {name: tensor.clone() for name, tensor in network.named(trainer.flat, shape).items()}
    samplers = [a_sampler("joint", shape, Streams(seed, CPU), inputs.labels, 4) for seed in SEEDS]
    drawn = []
    for sampler in samplers:
        sampler.new_epoch()
        drawn.append(sampler.draw(0, 1))
    both = type(drawn[0])(*(None if one is None else torch.cat([one, two], 1) for one, two in zip(*drawn, strict=True)))
    trainer.step(part_of(trainer.objective.prepare(both), 0), torch.tensor(1e-4))
    lengths = []
    for s in range(2):
        head = PlainHead(shape).double().take({name: tensor[s] for name, tensor in tensors.items()})
        own = type(drawn[s])(*(None if field is None else field[0, 0] for field in drawn[s]))
        Step("joint", inputs.features.double(), inputs.labels, own).loss(head).backward()
        expected = torch.cat([gradient.flatten() for gradient in head.gradients(tensors).values()])
        lengths.append(float(expected.norm()))
        expected *= min(1.0, 1 / lengths[s])
        torch.testing.assert_close(trainer.grads[s].double(), expected, rtol=1e-4, atol=1e-5 * float(expected.norm()))
    assert lengths[1] < 1 < lengths[0]


@pytest.mark.parametrize(("method", "batch", "parts"), [("v5", 24, [72]), ("joint", 24, [48]), ("joint", 64, [64, 64])])
def test_many_rows_of_a_step_go_through_the_head_in_halves_and_few_together(method, batch, parts, monkeypatch):
    trainer, *_ = a_trainer(method, [5], rows=batch + 9, batch=batch, epochs=1)
    forward, seen = network.forward, []

    def watched(weights, shape, inputs, dropout=None):
        seen.append(inputs.shape[1])
        return forward(weights, shape, inputs, dropout)

    monkeypatch.setattr(network, "forward", watched)
    trained(trainer, 1)
    assert seen == parts


def test_of_several_seeds_the_one_whose_loss_is_not_finite_is_named():
    trainer, *_ = a_trainer("v5", (5, 7, 9))
    trained(trainer, 1)
    trainer.flat[1, 0] = float("nan")
    with pytest.raises(HeadsError, match=f"v5, seed 7, is not finite at step 1 of {trainer.steps}, epoch 2"):
        trainer.epoch(2, lambda steps, loss: None)
