"""Training steps: some seeds side by side on a GPU, one seed on a CPU, by the same lines.

On a GPU a run of steps is captured as a graph and replayed: the device never waits for the host, nor the host for the
device, inside an epoch. On a CPU the rows of a step are cut in two halves that share nothing but the loss, so that two
cores meet eight times a step and not at every operation, where they would wait for each other more than they work (and
with another program on one of the cores, nothing else). The halves are halves whether two cores are there or one: a
seed's bits depend on neither the number of cores nor the seeds beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from heads import network
from heads.errors import HeadsError
from heads.methods import Method, keep_probabilities, prefix_probabilities
from heads.presets import HeadShape
from heads.training import losses, validation
from heads.training.inputs import Inputs
from heads.training.joint import Joint
from heads.training.optimiser import AdamW, learning_rates
from heads.training.sampling import Classes, Draws, DrawShape, Sampler, Streams
from heads.training.three_terms import ThreeTerms

CLIP = 1.0
WEIGHT_DECAY = 0.01
_STEPS_AT_A_TIME = 25  # drawn
_CAPTURED_STEPS = 5  # replayed at once on a GPU; more take longer to capture than they save
_MLP_START = 0.1  # what the MLP's last layer is multiplied by at the start
_DRAWN_BYTES = 4 << 20  # of dropout, on a CPU: what stays in its caches

Report = Callable[[int, float | None], None]
_T = TypeVar("_T")


class Objective(Protocol):
    """What a method minimises: it prepares some steps' data, then turns outputs of the head into a gradient."""

    positives: int

    @property
    def supervised(self) -> tuple[bool, ...]:
        """Whether each level's classifier is trained."""

    def rows_for(self, batch: int) -> int:
        """Rows that go through the head in a step."""

    def prepare(self, draws: Draws) -> Any:
        """Work out all of some steps that does not depend on the weights: a named tuple of tensors [N, ...]."""

    def gradient(
        self, weights: network.Tensors, grads: network.Tensors, outputs: Tensor, batch: Any
    ) -> tuple[Tensor, Tensor]:
        """Give losses [S] and the gradient by the outputs [S, R, D]; write the classifiers' gradients."""


class Trainer:
    """The state of a fit of some seeds: weights [S, P], their best so far, their history."""

    def __init__(
        self,
        inputs: Inputs,
        method: Method,
        shape: HeadShape,
        seeds: list[int],
        settings: dict[str, Any],
        helper: ThreadPoolExecutor | None = None,
        start: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Prepare to train.

        :param start: tensors by name that begin at given values, not at random ones.
        :param helper: one more thread for the other half of each step's rows, on a CPU.
        :raises HeadsError: if no two rows share a finest class, or a seed is negative.
        """
        self._inputs, self._method, self._shape, self.seeds, self._helper = inputs, method, shape, seeds, helper
        device = inputs.features.device
        classes = Classes(inputs.labels)
        if method.supervise is None:
            both = self._both if device.type == "cpu" else None
            self.objective: Objective = Joint(method.settings, shape, inputs.labels, classes, both)
        else:
            supervision = method.supervise(shape.scales, inputs.labels.shape[1])
            self.objective = ThreeTerms(supervision, shape, inputs.labels, classes)
        draws = self._draw_shape(min(settings["batch_size"], len(classes.anchors)))
        streams = [Streams(seed, device) for seed in seeds]
        self._sampler = Sampler(streams, classes.anchors, draws)
        self.steps = self._sampler.steps
        total = self.steps * settings["epochs"]
        rates = learning_rates(settings["lr"], total, settings["schedule"])
        self._rates = torch.from_numpy(rates).float().to(device)
        self.flat = initial_weights(shape, streams, start).to(device)
        self.grads = torch.zeros_like(self.flat)
        self._weights, self._gradients = network.Tensors(self.flat, shape), network.Tensors(self.grads, shape)
        self._halves = device.type == "cpu"
        self._rate = self._rates[0].clone()
        halves = 2 if self._halves else 1
        self._optimisers = [
            AdamW(weights, grads, self._rate, WEIGHT_DECAY)
            for weights, grads in zip(self.flat.view(-1).chunk(halves), self.grads.view(-1).chunk(halves), strict=True)
        ]
        self._graphs: dict[int, _Captured] = {}
        self.best, self.best_epochs = self.flat.clone(), [0] * len(seeds)
        self._best_scores = [-np.inf] * len(seeds)
        self._selects = inputs.validation is not None and len(inputs.validation) >= validation.FEWEST
        self.histories: list[list[dict[str, Any]]] = [[] for _ in seeds]
        self.seconds = 0.0

    def epoch(self, number: int, report: Report) -> None:
        """Train one epoch, from 1, then judge it.

        :param report: told how many steps were done since it was last told, and their mean loss; None on a GPU,
            where asking would make the device wait.
        :raises HeadsError: if a loss is not finite.
        """
        started = time.perf_counter()
        self._sampler.new_epoch()
        epoch_losses = torch.empty(self.steps, len(self.seeds), device=self.flat.device)
        at_a_time = self._steps_at_a_time()
        for first in range(0, self.steps, at_a_time):
            count = min(at_a_time, self.steps - first)
            batches = self.objective.prepare(self._sampler.draw(first, count))
            done = (number - 1) * self.steps + first
            part, rates = epoch_losses[first : first + count], self._rates[done : done + count]
            self._take(batches, rates, part, warm=done > 0)
            report(count, float(part.mean()) if self.flat.device.type == "cpu" else None)
        self._judge(number, epoch_losses.cpu().numpy())
        self.seconds += time.perf_counter() - started

    def _take(self, batches: Any, rates: Tensor, step_losses: Tensor, *, warm: bool) -> None:
        """Take some steps, on a GPU by replaying a captured few, once a few have been taken one by one to `warm` up."""
        for first in range(0, len(rates), _CAPTURED_STEPS):
            some = slice(first, first + _CAPTURED_STEPS)
            if self.flat.device.type == "cuda" and (warm or first > 0):
                step_losses[some] = self._replay(part_of(batches, some), rates[some])
            else:
                for n in range(first, min(first + _CAPTURED_STEPS, len(rates))):
                    step_losses[n] = self.step(part_of(batches, n), rates[n])

    def step(self, batch: Any, rate: Tensor) -> Tensor:
        """Take one step of every seed at a learning rate []; return the losses [S]."""
        self._rate.copy_(rate)
        inputs = self._inputs.features[batch.rows]
        if not self._halves or inputs.shape[1] < 4:
            outputs, tape = network.forward(self._weights, self._shape, inputs, batch.dropout)
            loss, by_outputs = self.objective.gradient(self._weights, self._gradients, outputs, batch)
            network.backward(self._weights, self._gradients, self._shape, tape, by_outputs)
        else:
            loss = self._in_halves(inputs, batch)
        self._descend()
        return loss

    def _descend(self) -> None:
        """Clip each seed's gradient and change its weights.

        On a CPU every pass over the parameters counts: the two halves are measured at once, and the optimiser divides
        by what is too long while it reads the gradient.
        """
        if not self._halves or len(self.seeds) > 1:
            norms = torch.linalg.vector_norm(self.grads, dim=1, keepdim=True)
            self.grads.mul_((CLIP / (norms + 1e-6)).clamp_(max=1))
            for optimiser in self._optimisers:
                optimiser.step()
            return
        first, second = self.grads.view(-1).chunk(2)
        norms = torch.stack(
            self._both(lambda: torch.linalg.vector_norm(first), lambda: torch.linalg.vector_norm(second))
        )
        excess = ((torch.linalg.vector_norm(norms) + 1e-6) / CLIP).clamp_(min=1)
        one, other = self._optimisers
        self._both(lambda: one.step(excess), lambda: other.step(excess))

    def _in_halves(self, inputs: Tensor, batch: Any) -> Tensor:
        """Run a step with two halves of its rows, then two halves of its tensors, at once; return the loss [1].

        A tensor's gradient is the first half's and then the second's, whoever adds them up, and is written once.
        """
        cut = inputs.shape[1] // 2
        parts, dropout = (slice(None, cut), slice(cut, None)), batch.dropout

        def onward(part: slice) -> tuple[Tensor, network.Tape]:
            own = None if dropout is None else dropout[:, :, part]
            return network.forward(self._weights, self._shape, inputs[:, part], own)

        (first, first_tape), (second, second_tape) = self._both(lambda: onward(parts[0]), lambda: onward(parts[1]))
        outputs = torch.cat([first, second], 1)
        loss, by_outputs = self.objective.gradient(self._weights, self._gradients, outputs, batch)

        def back(part: slice, tape: network.Tape) -> network.Uses:
            return network.propagate(self._weights, self._shape, tape, by_outputs[:, part].contiguous())

        uses, more = self._both(lambda: back(parts[0], first_tape), lambda: back(parts[1], second_tape))
        uses = uses.with_more(more)
        shares = self._shares(uses.names)
        self._both(lambda: uses.write(self._gradients, shares[0]), lambda: uses.write(self._gradients, shares[1]))
        return loss

    @staticmethod
    def _shares(names: list[str]) -> tuple[list[str], list[str]]:
        """Cut names in two of about equal work: tensors of a kind alternate."""
        kinds = sorted(names, key=lambda name: name.rsplit(".", 1)[-1])
        return kinds[::2], kinds[1::2]

    def _both(self, first: Callable[[], _T], second: Callable[[], _T]) -> tuple[_T, _T]:
        """Do two things, at once if there is a second thread."""
        if self._helper is None:
            return first(), second()
        later = self._helper.submit(second)
        try:
            return first(), later.result()
        finally:
            later.exception()

    def _replay(self, batches: Any, rates: Tensor) -> Tensor:
        """Take as many steps as there are rates by a captured graph; return the losses [N, S]."""
        count = len(rates)
        if count not in self._graphs:
            self._graphs[count] = _Captured(self, batches, rates)
        return self._graphs[count].run(batches, rates)

    def _steps_at_a_time(self) -> int:
        if self.flat.device.type == "cuda" or self._sampler.shape.dropout is None:
            return _STEPS_AT_A_TIME
        return max(1, min(_STEPS_AT_A_TIME, _DRAWN_BYTES // (4 * prod(self._sampler.shape.dropout))))

    def _draw_shape(self, batch: int) -> DrawShape:
        shape = self._shape
        return DrawShape(
            batch=batch,
            positives=self.objective.positives,
            prefix_probabilities=prefix_probabilities(shape.scales),
            keep_probabilities=keep_probabilities(shape.scales),
            dropout=(shape.hidden_layers, self.objective.rows_for(batch), shape.hidden)
            if shape.hidden_layers
            else None,
            rate=shape.dropout,
        )

    def _judge(self, number: int, epoch_losses: np.ndarray) -> None:
        """Stop at a loss that is not finite; write the history; keep the weights of seeds that are at their best."""
        broken = np.argwhere(~np.isfinite(epoch_losses))
        if len(broken):
            step, s = broken[0]
            raise HeadsError(
                f"the loss of {self._method.name}, seed {self.seeds[s]}, is not finite at step {step + 1} of"
                f" {self.steps}, epoch {number}",
                "use a smaller lr",
            )
        rate = float(self._rates[number * self.steps - 1])
        accuracies = self._accuracies()
        lost = (~self.flat.isfinite().all(1)).nonzero()[:, 0].tolist()  # by the last step, after its loss
        if lost:
            raise HeadsError(
                f"weights of {self._method.name}, seed {self.seeds[lost[0]]}, are not finite after epoch {number}",
                "use a smaller lr",
            )
        for s in range(len(self.seeds)):
            accuracy = None if accuracies is None else accuracies[s]
            score = None if accuracy is None else validation.score(accuracy)
            if score is None or not self._selects or score >= self._best_scores[s]:
                self.best[s] = self.flat[s]
                self.best_epochs[s] = number
                self._best_scores[s] = -np.inf if score is None else score
            levels = range(len(self._shape.classes))
            each = {f"accuracy_{level}": None if accuracy is None else float(accuracy[level]) for level in levels}
            loss = float(epoch_losses[:, s].mean())
            self.histories[s].append({"epoch": number, "loss": loss, "lr": rate, "score": score, **each})

    def _accuracies(self) -> np.ndarray | None:
        """Judge every seed on the validation rows, float64 [S, L]; the device is waited for once."""
        held, labels = self._inputs.validation, self._inputs.validation_labels
        if held is None or labels is None:
            return None
        outputs, _ = network.forward(self._weights, self._shape, held.expand(len(self.seeds), *held.shape))
        embeddings, _ = losses.normalise(outputs)
        return torch.stack([validation.accuracies(one, labels) for one in embeddings]).cpu().numpy()


class _Captured:
    """Some steps as one CUDA graph: what they read is copied to where they were captured reading it."""

    def __init__(self, trainer: Trainer, batches: Any, rates: Tensor) -> None:
        self._batches = type(batches)(*(None if field is None else field.clone() for field in batches))
        self._rates = rates.clone()
        self._losses = torch.empty(len(rates), len(trainer.seeds), device=rates.device)
        self._graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(rates.device)
        with torch.cuda.graph(self._graph):
            for n in range(len(rates)):
                self._losses[n] = trainer.step(part_of(self._batches, n), self._rates[n])

    def run(self, batches: Any, rates: Tensor) -> Tensor:
        for own, new in zip(self._batches, batches, strict=True):
            if own is not None:
                own.copy_(new)
        self._rates.copy_(rates)
        self._graph.replay()
        return self._losses


def part_of(batches: Any, n: int | slice) -> Any:
    """Take step n, or a slice, of some steps' data."""
    return type(batches)(*(None if field is None else field[n] for field in batches))


def initial_weights(shape: HeadShape, streams: Sequence[Streams], start: Mapping[str, Tensor] | None = None) -> Tensor:
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
            if start is not None and slot.name in start:
                part.copy_(start[slot.name].flatten())
            elif slot.name.startswith("mlp.contract"):  # the head starts at its linear map
                part.mul_(_MLP_START)
    return flat
