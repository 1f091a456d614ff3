"""What gradients written out by hand are worth: whole fits beside the same fits by autograd, in one process, in turn.

    python benchmarks/heads/autograd.py --artifacts artifacts --json benchmarks/results/autograd.json
    python benchmarks/heads/autograd.py --features build/features.npz --device cuda --seeds 10 --joint mlp,3

`v5` and `mrl` with head `paper`, `joint` with what it chooses, on CLINC, median of five runs of each side in turn.
Autograd has the same batches, the same vectorised losses, all seeds at once, the library's fused operations, the same
optimiser, and on a GPU the same captured graphs; both gradients are compared before the clock starts. Each run is a
whole `fit_many`; selection by validation is left out, for it is the same on both sides. On a CPU by hand two threads
are two halves of the rows; for autograd they share each operation, and wait for each other at its end: on a machine
that does other work the two figures say nothing, and a seed's bits depend on the number of threads.
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
    """Trains some seeds by autograd, on a CPU the library's threads sharing each operation."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """Make a leaf of each tensor."""
        super().__init__(*arguments, **named)
        if self._helper is not None:
            self._helper = None
            torch.set_num_threads(2)
        self._leaves = {name: tensor.detach().requires_grad_() for name, tensor in self._weights.items()}

    def step(self, batch: Any, rate: Tensor) -> Tensor:
        """Take one step."""
        self._rate.copy_(rate)
        outputs = forward(self._leaves, self._shape, self._inputs.features[batch.rows], batch.dropout)
        kind = joint if isinstance(batch, PairBatch) else three_terms
        loss = kind(self.objective, self._leaves, self._shape, outputs, batch)
        found = torch.autograd.grad(loss.sum(), list(self._leaves.values()), allow_unused=True)
        used = [(self._gradients[name], one) for name, one in zip(self._leaves, found, strict=True) if one is not None]
        torch._foreach_copy_([gradient for gradient, _ in used], [one for _, one in used])
        self._descend()
        return loss.detach()


def forward(weights: dict[str, Tensor], shape: HeadShape, inputs: Tensor, dropout: Tensor | None) -> Tensor:
    """`heads.network.forward`, [S, R, H] to [S, R, D]."""

    def affine(name: str, rows: Tensor) -> Tensor:
        return torch.baddbmm(weights[f"{name}.bias"][:, None], rows, weights[f"{name}.weight"].mT)

    def norm(name: str, rows: Tensor) -> Tensor:
        return normal(weights, name, rows)

    projected = affine("input", inputs)
    if shape.mlp:
        active = functional.gelu(affine("mlp.expand", functional.layer_norm(inputs, inputs.shape[-1:])))
        return projected + affine("mlp.contract", active if dropout is None else active * dropout[:, 0])
    if not shape.transformer:
        return projected
    state, blocks = projected, []
    for scale in range(shape.scales):
        block = f"block.{0 if shape.shared else scale}"
        state = state + affine(f"{block}.output", affine(f"{block}.value", norm(f"{block}.norm1", state)))
        active = functional.gelu(affine(f"{block}.expand", norm(f"{block}.norm2", state)))
        if dropout is not None:
            active = active * dropout[:, scale]
        state = torch.add(state + affine(f"{block}.contract", active), projected, alpha=shape.residual(scale))
        blocks.append(affine(f"scale.{scale}.linear", norm(f"scale.{scale}.norm", state)))
    return torch.cat(blocks, 2)


def normal(weights: dict[str, Tensor], name: str, rows: Tensor) -> Tensor:
    """Layer norm of rows [S, n, d] with each seed's gain and shift."""
    plain, gain = functional.layer_norm(rows, rows.shape[-1:]), weights[f"{name}.weight"]
    return torch.addcmul(weights[f"{name}.bias"][:, None], plain, gain[:, None])


def three_terms(objective: Any, weights: dict[str, Tensor], shape: HeadShape, outputs: Tensor, batch: Any) -> Tensor:
    """The losses [S] of `heads.training.three_terms`."""
    seeds, terms, size = batch.masks.shape[:3]
    masks = batch.masks.repeat_interleave(shape.scale_dim, 3)
    anchors = functional.normalize(outputs[:, None, :size] * masks, dim=3)
    partners = functional.normalize(outputs[:, size:].view(seeds, objective.positives, size, -1), dim=3)
    similarities = anchors @ partners[:, objective._kind_of_term].mT / losses.TEMPERATURE
    own = torch.arange(size, device=outputs.device).repeat(seeds * terms)
    each = functional.cross_entropy(similarities.flatten(0, 2), own, reduction="none").view(seeds, terms, size)
    total: Tensor = (each.mean(2) * objective._term_weights).sum(1) + margin(objective, anchors @ anchors.mT, batch)
    for level, comparisons in objective._of_level.items():
        term = objective._of_term[comparisons]
        seen = normal(weights, f"classifier.{level}.norm", anchors[:, term].flatten(1, 2))
        linear = weights[f"classifier.{level}.linear.bias"], weights[f"classifier.{level}.linear.weight"]
        logits = torch.baddbmm(linear[0][:, None], seen, linear[1].mT)
        labels = batch.labels[:, :, level].repeat(1, len(term))
        share = batch.weights[:, comparisons] * (objective._term_weights[term] / size)[:, None]
        each = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        total = total + (each.view(seeds, -1) * share.flatten(1)).sum(1)
    return total


def margin(objective: Any, among: Tensor, batch: Any) -> Tensor:
    """The margin losses [S], among anchors [S, T, B, B]."""
    if batch.pairs is not None:
        rows, places, coefficients = batch.pairs
        flat = among.view(-1, among.shape[-1])
        excess = flat[rows] - flat.view(-1)[places][:, None] + losses.MARGIN
        of_pairs: Tensor = (functional.relu(excess) * coefficients).sum()[None]
        return of_pairs
    found = among[:, objective._of_term]
    excess = functional.relu(found[:, :, :, None] - found[..., None] + losses.MARGIN)
    loss: Tensor = ((excess * batch.negatives[:, :, :, None]).sum(4) * batch.positives).sum((1, 2, 3))
    return loss


def joint(objective: Any, weights: dict[str, Tensor], shape: HeadShape, outputs: Tensor, batch: Any) -> Tensor:
    """The losses [S] of `heads.training.joint`."""
    own, seeds = blocks(outputs, shape), len(outputs)
    share = 1 / (shape.scales * outputs.shape[1])
    scores = cosines(own, own) / objective._temperature
    apart = torch.eye(outputs.shape[1], dtype=torch.bool, device=outputs.device)
    total: Tensor = -(scores.masked_fill(apart, -1e9).log_softmax(3) * batch.targets[:, None]).sum((1, 2, 3)) * share
    for level, weight in enumerate(objective._level_weights):
        if weight * objective._proxy_weight:
            logits = cosines(own, blocks(weights[f"proxies.{level}"], shape)) / objective._proxy_temperature
            labels = batch.labels[:, None, :, level].expand(-1, shape.scales, -1)
            each = functional.cross_entropy(logits.flatten(0, 2), labels.flatten(), reduction="none")
            total = total + each.view(seeds, -1).sum(1) * (share * weight * objective._proxy_weight)
    return total


def blocks(vectors: Tensor, shape: HeadShape) -> Tensor:
    """Split [S, n, D] into [S, J, n, d]."""
    return vectors.view(*vectors.shape[:2], shape.scales, -1).transpose(1, 2)


def cosines(left: Tensor, right: Tensor) -> Tensor:
    """Cosines at every prefix, [S, J, n, m]: products of blocks add up."""
    by_left, by_right = (one.square().sum(3).cumsum(1).clamp(min=1e-24).rsqrt() for one in (left, right))
    return (left @ right.mT).cumsum(1) * by_left[..., None] * by_right[:, :, None]


class _Enough(Exception):
    """One gradient was taken."""


def difference(method: str, head: str, train: tuple[Any, Any], seeds: list[int], device: str) -> float:
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
            heads.fit_many(*train, seeds=seeds, method=method, head=head, epochs=1, device=device)
    own, other = found[0], found[-1]
    return float((own - other).abs().max() / own.abs().max())


def _chosen(data: Features, device: str) -> tuple[str, int]:
    choice = heads.choose(*data.splits["train"], validation=data.splits["val"], device=device)
    return choice.head, choice.epochs


def main() -> None:
    """Compare all three methods."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_sources(parser)
    parser.add_argument("--seeds", type=int, default=1, help="so many seeds per fit")
    parser.add_argument("--epochs", type=int, help="of v5 and mrl, fewer than their own: the same steps, fewer")
    parser.add_argument("--threads", type=int, choices=[1, 2], default=2)
    parser.add_argument("--joint", type=listed, help="head and epochs of joint instead of choosing them: mlp,4")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = Results(machine(options.device), options.json)
    data, seeds = datasets_of(options)["clinc"], list(range(options.seeds))
    train = data.splits["train"]
    head, epochs = options.joint or _chosen(data, options.device)
    rows = {"v5": ("paper", options.epochs), "mrl": ("paper", options.epochs), "joint": (head, int(epochs))}
    for method, (head, epochs) in rows.items():
        largest = difference(
            method, head, (train[0][::7], train[1][::7]), seeds if options.device == "cuda" else [0], options.device
        )
        seconds: dict[type, list[float]] = {trainer.Trainer: [], AutogradTrainer: []}
        for kind in list(seconds) * RUNS:
            began = time.perf_counter()
            with mock.patch.object(fitting, "Trainer", kind):
                heads.fit_many(*train, seeds=seeds, method=method, head=head, epochs=epochs, device=options.device)
            seconds[kind].append(time.perf_counter() - began)
        own, other = seconds.values()
        ratios = sorted(slow / fast for fast, slow in zip(own, other, strict=True))
        remark = (
            f"{ratios[0]:.2f} to {ratios[-1]:.2f}; {statistics.median(own):.2f} s by hand, "
            f"{statistics.median(other):.2f} s by autograd; gradients differ by {largest:.1g}"
        )
        settings = heads.hyperparameters(method, epochs=epochs)
        results.add(
            f"{method}, {head}, {len(seeds)} seeds, {settings['epochs']} epochs: autograd over by hand",
            ratios[RUNS // 2], "x", remark, by_hand=own, autograd=other, n=data.rows, settings=settings,
        )  # fmt: skip


if __name__ == "__main__":
    main()
