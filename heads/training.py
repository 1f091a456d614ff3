"""The fit loop: features and labels in, trained heads out.

Features, labels and everything random lie on the device before a step starts, each distinct row goes through the head
once a step, and gradients are written by hand into one flat vector (`heads/network.py`), so that clipping is one norm
and AdamW one operation. What is left of a step is about 200 operations.

On a GPU all seeds are trained together, as the leading dimension of every tensor, and a run of steps is captured as a
graph and replayed, without a look back at the host inside an epoch. On a CPU, where arithmetic is what costs, nothing
is won by training seeds together, so each has its steps to itself: that a seed's result depends on no other is then
plain. Both run the same lines.

The alternative, one process a seed around `torch.nn` modules, costs ten times the time of one seed for ten on a GPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heads import losses, network, selection
from heads.errors import HeadsError
from heads.head import FractalHead, Labelling, checked_features
from heads.methods import Method, hyperparameters, keep_probabilities, method_named, prefix_probabilities
from heads.objectives import Batch, ThreeTerms
from heads.presets import HeadShape, preset
from heads.sampling import Classes, DrawShape, Sampler, Streams
from heads.schedule import learning_rates

CLIP = 1.0
WEIGHT_DECAY = 0.01
_DRAWN = 25  # steps drawn, and on a GPU captured, at a time


@dataclass(frozen=True)
class FitProgress:
    """How far a fit is: `step` of `steps` in `epoch` (from 1) of `epochs`; steps of seeds that take turns add up.

    `loss` is the mean of the steps since the last report; None on a GPU, where asking would make the device wait.
    """

    method: str
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float | None


@dataclass(frozen=True)
class FitResult:
    """A trained head and how it came about.

    `history` has a row an epoch: epoch, loss, lr, score and the accuracy a level (None without validation);
    `best_epoch` (from 1) is the epoch kept; `seconds` are this seed's share of the fit's wall time.
    """

    head: FractalHead
    seed: int
    history: list[dict[str, Any]]
    best_epoch: int
    seconds: float
    parameters: int


@dataclass(frozen=True)
class _Data:
    """Checked input on the device: unit features [n, H], labels [n, L], the rows that select, the hierarchy."""

    features: Tensor
    labels: Tensor
    validation: Tensor | None
    validation_labels: np.ndarray | None
    classes: tuple[int, ...]
    parents: tuple[np.ndarray, ...]


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    method: str = "joint",
    validation: tuple[np.ndarray, np.ndarray] | None = None,
    head: str = "paper",
    seed: int = 42,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    device: str = "auto",
    progress: Callable[[FitProgress], None] | None = None,
) -> FractalHead:
    """Train one head; see `fit_many`, whose first result's head this is."""
    results = fit_many(
        features,
        labels,
        seeds=[seed],
        method=method,
        validation=validation,
        head=head,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        device=device,
        progress=progress,
    )
    return results[0].head


def fit_many(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    seeds: Sequence[int],
    method: str = "joint",
    validation: tuple[np.ndarray, np.ndarray] | None = None,
    head: str = "paper",
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    device: str = "auto",
    progress: Callable[[FitProgress], None] | None = None,
) -> list[FitResult]:
    """Train a head a seed; each is what it would be if trained alone (bit for bit on a CPU).

    :param features: real [n, H], raw as pooled; they are L2-normalised here.
    :param labels: integers [n, L], L >= 2, coarsest first, from 0; each class has one parent.
    :param seeds: of initialisation, sampling and dropout.
    :param method: a row of METHODS.
    :param validation: features and labels that choose the epoch kept; without them the last one is kept.
    :param head: a row of PRESETS.
    :param epochs: by default the method's own, as `batch_size` and `lr`.
    :param device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1".
    :param progress: called some times an epoch.
    :raises HeadsError: if the input does not fit together, holds NaN, has no two rows of one finest class or a class
        under two parents; if a name is unknown or a setting cannot be used; if a loss is not finite.
    """
    settings = hyperparameters(method, epochs=epochs, batch_size=batch_size, lr=lr)
    row, shape_row = method_named(method), preset(head)
    if not seeds:
        raise HeadsError("no seeds", "give at least one seed")
    where = _device(device)
    data = _checked(features, labels, validation, where)
    shape = HeadShape.of(shape_row, data.features.shape[1], data.classes)
    groups = [list(seeds)] if where.type == "cuda" else [[seed] for seed in seeds]
    trainers = [_Trainer(data, row, shape, group, settings) for group in groups]
    for epoch in range(1, settings["epochs"] + 1):
        for turn, trainer in enumerate(trainers):
            report = _reporter(progress, method, epoch, settings["epochs"], turn, len(trainers), trainer.steps)
            trainer.epoch(epoch, report)
    return [result for trainer in trainers for result in trainer.results(head)]


def _reporter(
    progress: Callable[[FitProgress], None] | None,
    method: str,
    epoch: int,
    epochs: int,
    turn: int,
    turns: int,
    steps: int,
) -> Callable[[int, float | None], None]:
    def report(step: int, loss: float | None) -> None:
        if progress is not None:
            progress(FitProgress(method, epoch, epochs, turn * steps + step, turns * steps, loss))

    return report


class _Trainer:
    """Trains some seeds side by side; one seed on a CPU."""

    def __init__(
        self, data: _Data, method: Method, shape: HeadShape, seeds: list[int], settings: dict[str, Any]
    ) -> None:
        self._data, self._method, self._shape, self._seeds = data, method, shape, seeds
        device = data.features.device
        classes = Classes(data.labels)
        supervision = method.supervise(shape.scales, data.labels.shape[1])
        self._objective = ThreeTerms(supervision, shape, data.labels, classes)
        batch = min(settings["batch_size"], len(classes.anchors))
        streams = [Streams(seed, device) for seed in seeds]
        rows = self._objective.rows_for(batch)
        draws = DrawShape(
            batch=batch,
            positives=self._objective.positives,
            prefix_probabilities=prefix_probabilities(shape.scales),
            keep_probabilities=keep_probabilities(shape.scales),
            dropout=(shape.scales, rows, shape.hidden) if shape.transformer else None,
            rate=shape.dropout,
        )
        self._sampler = Sampler(streams, classes.anchors, draws)
        self.steps = self._sampler.steps
        self._rates = learning_rates(
            settings["lr"], self.steps * settings["epochs"], one_cycle=settings["schedule"] == "one-cycle"
        )
        self._flat = initial_weights(shape, streams).to(device)
        self._grads = torch.zeros_like(self._flat)
        self._weights, self._gradients = network.views(self._flat, shape), network.views(self._grads, shape)
        self._optimiser = _adamw(self._flat, self._grads, settings["lr"])
        self._best = self._flat.clone()
        self._best_scores = [-np.inf] * len(seeds)
        self._best_epochs = [0] * len(seeds)
        self._histories: list[list[dict[str, Any]]] = [[] for _ in seeds]
        self._seconds = 0.0

    def epoch(self, number: int, report: Callable[[int, float | None], None]) -> None:
        """Train one epoch, then judge it."""
        started = time.perf_counter()
        self._sampler.new_epoch()
        epoch_losses = torch.empty(self.steps, len(self._seeds), device=self._flat.device)
        for first in range(0, self.steps, _DRAWN):
            count = min(_DRAWN, self.steps - first)
            batches = self._objective.prepare(self._sampler.draw(first, count))
            for n, batch in enumerate(batches):
                at = (number - 1) * self.steps + first + n
                for group in self._optimiser.param_groups:
                    group["lr"] = float(self._rates[at])
                epoch_losses[first + n] = self._step(batch)
            report(first + count, float(epoch_losses[first : first + count].mean()))
        self._judge(number, epoch_losses.cpu().numpy())
        self._seconds += time.perf_counter() - started

    def results(self, preset_name: str) -> list[FitResult]:
        """Hand over the kept heads."""
        labelling = Labelling(self._data.parents, self._objective.supervised)
        return [
            FitResult(
                FractalHead(
                    self._shape, self._best[s].cpu().clone(), labelling, method=self._method.name, preset=preset_name
                ),
                seed,
                self._histories[s],
                self._best_epochs[s],
                self._seconds / len(self._seeds),
                self._shape.parameters,
            )
            for s, seed in enumerate(self._seeds)
        ]

    def _step(self, batch: Batch) -> Tensor:
        """Take one step of every seed; return the losses [S]."""
        inputs = self._data.features[batch.rows]
        outputs, tape = network.forward(self._weights, self._shape, inputs, batch.dropout)
        loss, by_outputs = self._objective.gradient(self._weights, self._gradients, outputs, batch)
        network.backward(self._weights, self._gradients, self._shape, tape, by_outputs)
        norms = torch.linalg.vector_norm(self._grads, dim=1, keepdim=True)
        self._grads.mul_((CLIP / (norms + 1e-6)).clamp_(max=1))
        self._optimiser.step()
        return loss

    def _judge(self, number: int, epoch_losses: np.ndarray) -> None:
        """Stop at a loss that is not finite; write the history; keep the weights of seeds that are at their best."""
        broken = np.argwhere(~np.isfinite(epoch_losses))
        if len(broken):
            step, s = broken[0]
            raise HeadsError(
                f"the loss of {self._method.name}, seed {self._seeds[s]}, is not finite at step {step + 1} of"
                f" {self.steps}, epoch {number}",
                "use a smaller lr",
            )
        for s in range(len(self._seeds)):
            accuracy = self._accuracies(s)
            score = None if accuracy is None else selection.score(accuracy)
            if score is None or score > self._best_scores[s]:
                self._best[s] = self._flat[s]
                self._best_epochs[s] = number
                self._best_scores[s] = -np.inf if score is None else score
            levels = range(len(self._shape.classes))
            self._histories[s].append(
                {
                    "epoch": number,
                    "loss": float(epoch_losses[:, s].mean()),
                    "lr": float(self._rates[number * self.steps - 1]),
                    "score": score,
                    **{f"accuracy_{level}": None if accuracy is None else float(accuracy[level]) for level in levels},
                }
            )

    def _accuracies(self, s: int) -> np.ndarray | None:
        if self._data.validation is None or self._data.validation_labels is None:
            return None
        weights = network.views(self._flat[s : s + 1], self._shape)
        outputs, _ = network.forward(weights, self._shape, self._data.validation[None])
        embeddings = losses.normalise(outputs[0])[0]
        return selection.accuracies(embeddings, self._data.validation_labels)


def initial_weights(shape: HeadShape, streams: Sequence[Streams]) -> Tensor:
    """Draw each seed's first weights, float32 [S, P], on the CPU so that they are the same on every device.

    Linear maps start as torch's do, uniform within 1 / sqrt(fan-in); norms as the identity.
    """
    flat = torch.zeros(len(streams), shape.parameters)
    for s, stream in enumerate(streams):
        for slot in shape.tensors():
            part = flat[s, slot.offset : slot.offset + slot.size]
            if slot.fan_in:
                bound = slot.fan_in**-0.5
                part.uniform_(-bound, bound, generator=stream["weights"])
            elif slot.name.endswith("weight"):
                part.fill_(1)
    return flat


def _adamw(flat: Tensor, grads: Tensor, lr: float) -> torch.optim.AdamW:
    parameter = torch.nn.Parameter(flat, requires_grad=True)
    parameter.grad = grads
    return torch.optim.AdamW([parameter], lr=lr, weight_decay=WEIGHT_DECAY, fused=True)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise HeadsError(f"unknown device {name!r}", "use auto, cpu or cuda") from error
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and not torch.cuda.is_available()):
        raise HeadsError(f"device {name!r} is not available here", "use auto or cpu")
    return device


def _checked(
    features: np.ndarray, labels: np.ndarray, validation: tuple[np.ndarray, np.ndarray] | None, device: torch.device
) -> _Data:
    rows, own = checked_features(features, "features"), _checked_labels(labels, len(features), "labels")
    held, held_labels = None, None
    everything = own
    if validation is not None and len(validation[0]) > selection.NEIGHBOURS:
        held = checked_features(validation[0], "validation features")
        held_labels = _checked_labels(validation[1], len(held), "validation labels")
        if held.shape[1] != rows.shape[1] or held_labels.shape[1] != own.shape[1]:
            raise HeadsError(
                f"validation has {held.shape[1]} dimensions and {held_labels.shape[1]} levels, training"
                f" {rows.shape[1]} and {own.shape[1]}",
                "take both from the same features and the same hierarchy",
            )
        everything = np.concatenate([own, held_labels])
        chosen = selection.chosen_rows(len(held))
        held, held_labels = held[chosen], held_labels[chosen]
    classes = tuple(int(count) for count in everything.max(axis=0) + 1)
    units, _ = losses.normalise(torch.from_numpy(rows).to(device))
    return _Data(
        features=units,
        labels=torch.from_numpy(own).to(device),
        validation=None if held is None else losses.normalise(torch.from_numpy(held).to(device))[0],
        validation_labels=held_labels,
        classes=classes,
        parents=_parents(everything, classes),
    )


def _checked_labels(labels: Any, rows: int, name: str) -> np.ndarray:
    array = np.asarray(labels)
    if array.ndim != 2 or array.dtype.kind not in "iu" or array.shape[1] < 2 or len(array) != rows:
        raise HeadsError(
            f"{name} have shape {array.shape} and dtype {array.dtype} beside {rows} rows of features",
            "give integers of shape [n, L] with two or more levels, coarsest first",
        )
    if len(array) == 0 or array.min() < 0:
        raise HeadsError(
            f"{name} hold {'no rows' if len(array) == 0 else int(array.min())}", "number the classes from 0"
        )
    return np.ascontiguousarray(array, np.int64)


def _parents(labels: np.ndarray, classes: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Learn each class's parent from the rows, int64 [C] a level, -1 where a class has no row."""
    found = []
    for level in range(1, len(classes)):
        parents = np.full(classes[level], -1, np.int64)
        parents[labels[:, level]] = labels[:, level - 1]
        wrong = np.flatnonzero(parents[labels[:, level]] != labels[:, level - 1])
        if len(wrong):
            child, one = labels[wrong[0], level], labels[wrong[0], level - 1]
            raise HeadsError(
                f"class {child} of level {level} stands under classes {one} and {parents[child]} of level {level - 1}",
                "number the classes so that each has one parent",
            )
        found.append(parents)
    return tuple(found)
