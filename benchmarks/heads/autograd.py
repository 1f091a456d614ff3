"""What gradients written out by hand are worth: whole fits beside the same fits by autograd, in one process, in turn.

    python benchmarks/heads/autograd.py --artifacts artifacts --json benchmarks/results/autograd.json

`v5` and `mrl` with head `paper`, `joint` with what it chooses, on CLINC, median of five runs of each side in turn.
Autograd has the same batches, the same vectorised losses, the library's fused operations and the same optimiser; both
gradients are compared before the clock starts. Each run is a whole `fit_many`; selection by validation is left out, for
it is the same on both sides. By hand two threads are two halves of the rows; for autograd they share each operation,
and wait for each other at its end: on a machine that does other work the two figures say nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional

import heads
from benchmarks.heads.fit import Features, add_sources, datasets_of, listed
from benchmarks.measured import Results, machine
from heads import fitting
from heads.presets import HeadShape
from heads.training import losses, trainer
from heads.training.joint import PairBatch

RUNS = 5


class AutogradTrainer(trainer.Trainer):
    """Trains one seed by autograd, the library's threads sharing each operation."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """Make a leaf of each tensor, whose gradient is added up in its place in the flat vector."""
        super().__init__(*arguments, **named)
        if self._helper is not None:
            self._helper = None
            torch.set_num_threads(2)
        self._leaves = {name: tensor[0].detach().requires_grad_() for name, tensor in self._weights.items()}
        for name, leaf in self._leaves.items():
            leaf.grad = self._gradients[name][0]

    def step(self, batch: Any, rate: Tensor) -> Tensor:
        """Take one step."""
        self._rate.copy_(rate)
        self.grads.zero_()
        dropout = None if batch.dropout is None else batch.dropout[0]
        outputs = forward(self._leaves, self._shape, self._inputs.features[batch.rows[0]], dropout)
        kind = joint if isinstance(batch, PairBatch) else three_terms
        loss = kind(self.objective, self._leaves, self._shape, outputs, batch)
        loss.backward()
        self._descend()
        return loss.detach()[None]


def forward(weights: dict[str, Tensor], shape: HeadShape, inputs: Tensor, dropout: Tensor | None) -> Tensor:
    """`heads.network.forward` of one seed, [R, H] to [R, D]."""

    def linear(name: str, rows: Tensor) -> Tensor:
        return functional.linear(rows, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name: str, rows: Tensor) -> Tensor:
        return functional.layer_norm(rows, rows.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    projected = linear("input", inputs)
    if shape.mlp:
        active = functional.gelu(linear("mlp.expand", functional.layer_norm(inputs, inputs.shape[-1:])))
        return projected + linear("mlp.contract", active if dropout is None else active * dropout[0])
    if not shape.transformer:
        return projected
    state, blocks = projected, []
    for scale in range(shape.scales):
        block = f"block.{0 if shape.shared else scale}"
        state = state + linear(f"{block}.output", linear(f"{block}.value", norm(f"{block}.norm1", state)))
        active = functional.gelu(linear(f"{block}.expand", norm(f"{block}.norm2", state)))
        if dropout is not None:
            active = active * dropout[scale]
        state = torch.add(state + linear(f"{block}.contract", active), projected, alpha=shape.residual(scale))
        blocks.append(linear(f"scale.{scale}.linear", norm(f"scale.{scale}.norm", state)))
    return torch.cat(blocks, 1)


def three_terms(objective: Any, weights: dict[str, Tensor], shape: HeadShape, outputs: Tensor, batch: Any) -> Tensor:
    """The loss of `heads.training.three_terms` on one seed's pairs."""
    terms, size = batch.masks.shape[1:3]
    masks = batch.masks[0].repeat_interleave(shape.scale_dim, 2)
    anchors = functional.normalize(outputs[:size] * masks, dim=2)
    partners = functional.normalize(outputs[size:].view(objective.positives, size, -1), dim=2)
    similarities = anchors @ partners[objective._kind_of_term].mT / losses.TEMPERATURE
    own = torch.arange(size).repeat(terms)
    each = functional.cross_entropy(similarities.flatten(0, 1), own, reduction="none").view(terms, size)
    total = (each.mean(1) * objective._term_weights).sum()
    among = (anchors @ anchors.mT).view(-1, size)
    rows, places, coefficients = batch.pairs
    excess = among[rows] - among.view(-1)[places][:, None] + losses.MARGIN
    total = total + (functional.relu(excess) * coefficients).sum()
    for level, comparisons in objective._of_level.items():
        term = objective._of_term[comparisons]
        gain, shift = weights[f"classifier.{level}.norm.weight"], weights[f"classifier.{level}.norm.bias"]
        seen = functional.layer_norm(anchors[term].flatten(0, 1), gain.shape, gain, shift)
        linear = weights[f"classifier.{level}.linear.weight"], weights[f"classifier.{level}.linear.bias"]
        labels = batch.labels[0, :, level].repeat(len(term))
        share = batch.weights[0, comparisons] * (objective._term_weights[term] / size)[:, None]
        each = functional.cross_entropy(functional.linear(seen, *linear), labels, reduction="none")
        total = total + (each * share.flatten()).sum()
    return total


def joint(objective: Any, weights: dict[str, Tensor], shape: HeadShape, outputs: Tensor, batch: Any) -> Tensor:
    """The loss of `heads.training.joint` on one seed."""
    own = blocks(outputs, shape)
    share = 1 / (shape.scales * len(outputs))
    scores = cosines(own, own) / objective._temperature
    apart = torch.eye(len(outputs), dtype=torch.bool)
    total = -(scores.masked_fill(apart, -1e9).log_softmax(2) * batch.targets[0]).sum() * share
    for level, weight in enumerate(objective._level_weights):
        if weight * objective._proxy_weight:
            logits = cosines(own, blocks(weights[f"proxies.{level}"], shape)) / objective._proxy_temperature
            labels = batch.labels[0, :, level].repeat(shape.scales)
            each = functional.cross_entropy(logits.flatten(0, 1), labels, reduction="sum")
            total = total + each * (share * weight * objective._proxy_weight)
    return total


def blocks(vectors: Tensor, shape: HeadShape) -> Tensor:
    """Split [n, D] into [J, n, d]."""
    return vectors.view(len(vectors), shape.scales, -1).transpose(0, 1)


def cosines(left: Tensor, right: Tensor) -> Tensor:
    """Cosines at every prefix, [J, n, m]: products of blocks add up."""
    by_left, by_right = (one.square().sum(2).cumsum(0).clamp(min=1e-24).rsqrt() for one in (left, right))
    return (left @ right.mT).cumsum(0) * by_left[:, :, None] * by_right[:, None]


class _Enough(Exception):
    """One gradient was taken."""


def difference(method: str, head: str, train: tuple[Any, Any]) -> float:
    """The largest difference between the gradients of the first step, as a share of the largest gradient."""
    found: list[Tensor] = []

    def keep(self: trainer.Trainer) -> None:
        found.append(self.grads.clone())
        raise _Enough

    for kind in (trainer.Trainer, AutogradTrainer):
        with (
            mock.patch.object(fitting, "Trainer", kind),
            mock.patch.object(trainer.Trainer, "_descend", keep),
            contextlib.suppress(_Enough),
        ):
            heads.fit_many(*train, seeds=[0], method=method, head=head, epochs=1, device="cpu")
    own, other = found
    return float((own - other).abs().max() / own.abs().max())


def _chosen(data: Features) -> tuple[str, int]:
    choice = heads.choose(*data.splits["train"], validation=data.splits["val"], device="cpu")
    return choice.head, choice.epochs


def main() -> None:
    """Compare all three methods."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_sources(parser)
    parser.add_argument("--epochs", type=int, help="of v5 and mrl, fewer than their own: the same steps, fewer")
    parser.add_argument("--threads", type=int, choices=[1, 2], default=2)
    parser.add_argument("--joint", type=listed, help="head and epochs of joint instead of choosing them: mlp,4")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = Results(machine("cpu"), options.json)
    data = datasets_of(options)["clinc"]
    train = data.splits["train"]
    head, epochs = options.joint or _chosen(data)
    rows = {"v5": ("paper", options.epochs), "mrl": ("paper", options.epochs), "joint": (head, int(epochs))}
    for method, (head, epochs) in rows.items():
        largest = difference(method, head, (train[0][::7], train[1][::7]))
        seconds: dict[type, list[float]] = {trainer.Trainer: [], AutogradTrainer: []}
        for kind in list(seconds) * RUNS:
            began = time.perf_counter()
            with mock.patch.object(fitting, "Trainer", kind):
                heads.fit_many(*train, seeds=[0], method=method, head=head, epochs=epochs, device="cpu")
            seconds[kind].append(time.perf_counter() - began)
        own, other = seconds.values()
        ratios = sorted(slow / fast for fast, slow in zip(own, other, strict=True))
        remark = (
            f"{ratios[0]:.2f} to {ratios[-1]:.2f}; {statistics.median(own):.1f} s by hand, "
            f"{statistics.median(other):.1f} s by autograd; gradients differ by {largest:.1g}"
        )
        settings = heads.hyperparameters(method, epochs=epochs)
        results.add(
            f"{method}, {head}, {settings['epochs']} epochs: autograd over by hand", ratios[RUNS // 2], "x", remark,
            by_hand=own, autograd=other, n=data.rows, settings=settings,
        )  # fmt: skip


if __name__ == "__main__":
    main()
