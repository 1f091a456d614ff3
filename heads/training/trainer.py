"""Training steps: some seeds side by side on a GPU, one seed on a CPU, by the same lines.

On a GPU a run of steps is captured as a graph and replayed: the device never waits for the host, nor the host for the
device, inside an epoch. On a CPU many rows of a step are cut in two halves that share nothing but the loss, so that
two cores meet five times a step and not at every operation, where they would wait for each other more than they work
(and with another program on one of the cores, nothing else). Few rows, such as the 48 or 72 of the published methods,
stay together: each half would start every operation again and read every weight again, and two cores were no faster
with halves than one core is with all rows. The halves are halves whether two cores are there or one, and two gradients
add up to the same bits whichever comes first: a seed's bits depend on neither the number of cores nor the seeds beside
it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from heads import network
from heads.errors import HeadsError
from heads.methods import Method, keep_probabilities, prefix_probabilities
from heads.presets import HeadShape
from heads.training import validation
from heads.training.inputs import Inputs
from heads.training.joint import Joint
from heads.training.optimiser import AdamW, learning_rates
from heads.training.sampling import Classes, DrawShape, Sampler, Streams
from heads.training.three_terms import ThreeTerms

CLIP = 1.0
WEIGHT_DECAY = 0.01
_STEPS_AT_A_TIME = 25  # drawn
_CAPTURED_STEPS = 5  # replayed at once on a GPU; more take longer to capture than they save
_MANY_ROWS = 128  # of a step: so many or more are cut in halves on a CPU
_DRAWN_BYTES = 4 << 20  # of dropout, on a CPU: what stays in its caches

Report = Callable[[int, float | None], None]
_In = TypeVar("_In")
_Out = TypeVar("_Out")


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
        self.histories: list[list[dict[str, Any]]] = [[] for _ in seeds]
        device = inputs.features.device
        streams = [Streams(seed, device) for seed in seeds]
        classes = Classes(inputs.labels)
        if method.supervise is None:
            self.objective: Joint | ThreeTerms = Joint(method.settings, shape, inputs.labels, classes)
        else:
            supervision = method.supervise(shape.scales, inputs.labels.shape[1])
            self.objective = ThreeTerms(supervision, shape, inputs.labels, classes)
        batch = min(settings["batch_size"], len(classes.anchors))
        rows = self.objective.rows_for(batch)
        draws = DrawShape(
            batch=batch,
            positives=self.objective.positives,
            prefix_probabilities=prefix_probabilities(shape.scales),
            keep_probabilities=keep_probabilities(shape.scales),
            dropout=(shape.hidden_layers, rows, shape.hidden) if shape.hidden_layers else None,
            rate=shape.dropout,
        )
        self._sampler = Sampler(streams, classes.anchors, draws)
        self._steps_at_a_time = _STEPS_AT_A_TIME
        if draws.dropout is not None and device.type == "cpu":
            self._steps_at_a_time = max(1, min(_STEPS_AT_A_TIME, _DRAWN_BYTES // (4 * prod(draws.dropout))))
        self.steps = self._sampler.steps
        total = self.steps * settings["epochs"]
        rates = learning_rates(settings["lr"], total, settings["schedule"])
        self._rates = torch.from_numpy(rates).float().to(device)
        self.flat = network.initial_weights(shape, streams, start).to(device)
        self.grads = torch.zeros_like(self.flat)
        self._weights = network.named(self.flat if len(seeds) > 1 else self.flat[0], shape)
        for tensor in self._weights.values():
            tensor.requires_grad_()
        self._rate = self._rates[0].clone()
        on_cpu = device.type == "cpu"
        self._in_halves = on_cpu and self.objective.rows_for(draws.batch) >= _MANY_ROWS
        self._shares = [list(self._weights.values())]
        changed = [[self.flat]]
        if on_cpu and len(seeds) == 1:
            largest = sorted(self._weights.values(), key=Tensor.numel, reverse=True)
            self._shares = changed = [largest[::2], largest[1::2]]
        self._optimisers = [AdamW(weights, self._rate, WEIGHT_DECAY) for weights in changed]
        self._graphs: dict[int, _Captured] = {}
        self.best, self.best_epochs = self.flat.clone(), [0] * len(seeds)
        self._best_scores = [-np.inf] * len(seeds)
        self._selects = inputs.validation is not None and len(inputs.validation) >= validation.FEWEST
        self.seconds = 0.0

    def train(self, epochs: int, report: Report) -> None:
        """Train so many epochs; see `epoch`."""
        for number in range(1, epochs + 1):
            self.epoch(number, report)

    def epoch(self, number: int, report: Report) -> None:
        """Train one epoch, from 1, then judge it.

        :param report: told how many steps were done since it was last told, and their mean loss; None on a GPU,
            where asking would make the device wait.
        :raises HeadsError: if a loss is not finite.
        """
        started = time.perf_counter()
        self._sampler.new_epoch()
        epoch_losses = torch.empty(self.steps, len(self.seeds), device=self.flat.device)
        for first in range(0, self.steps, self._steps_at_a_time):
            count = min(self._steps_at_a_time, self.steps - first)
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
        """Take one step of every seed at a learning rate []; return the losses [S].

        The graph is cut at the head's outputs: each half of the rows has its own on either side, and waits there for
        the other.
        """
        self._rate.copy_(rate)
        inputs = self._inputs.features[batch.rows]
        rows = inputs.shape[1]
        whole = [slice(0, rows)]
        halves = [slice(0, rows // 2), slice(rows // 2, rows)] if self._in_halves else whole

        def onward(part: slice) -> Tensor:
            dropout = None if batch.dropout is None else batch.dropout[:, :, part]
            return network.forward(self._weights, self._shape, inputs[:, part], dropout)

        def judge(part: slice) -> Tensor:
            found = self.objective.losses(self._weights, cut, batch, part)
            torch.autograd.backward(found.sum())
            return found.detach()

        def back(place: int) -> None:
            # from a sum: begun at a gradient, this would import torch's compiler, for seconds
            torch.autograd.backward((outputs[place] * by_outputs[place]).sum())

        outputs = self._each(onward, halves)
        cut = torch.cat([one.detach() for one in outputs], 1).requires_grad_()
        losses = self._each(judge, halves if self.objective.by_rows else whole)
        assert cut.grad is not None
        by_outputs = [cut.grad[:, half] for half in halves]
        self._each(back, range(len(halves)))
        self._descend()
        return torch.stack(losses).sum(0)

    def _descend(self) -> None:
        """Clip each seed's gradient and change its weights.

        On a CPU every pass over the parameters counts: two shares of the tensors are done at once, as they are, and the
        optimiser divides by what is too long while it reads the gradient. Several seeds' lie side by side first.
        """
        grads = [[torch.zeros_like(one) if one.grad is None else one.grad for one in share] for share in self._shares]
        for tensor in self._weights.values():
            tensor.grad = None
        if len(grads) == 2:
            lengths = self._each(lambda share: torch.linalg.vector_norm(torch.stack(torch._foreach_norm(share))), grads)
            excess = ((torch.linalg.vector_norm(torch.stack(lengths)) + 1e-6) / CLIP).clamp_(min=1)
            self._each(lambda n: self._optimisers[n].step(grads[n], excess), range(2))
        else:
            torch.cat([one.reshape(len(self.seeds), -1) for one in grads[0]], 1, out=self.grads)
            norms = torch.linalg.vector_norm(self.grads, dim=1, keepdim=True)
            self.grads.mul_((CLIP / (norms + 1e-6)).clamp_(max=1))
            self._optimisers[0].step([self.grads])

    def _each(self, do: Callable[[_In], _Out], parts: Sequence[_In]) -> list[_Out]:
        """Do something with one part or two, at once if there is a second thread."""
        if self._helper is None or len(parts) == 1:
            return [do(part) for part in parts]
        later = self._helper.submit(do, parts[1])
        try:
            return [do(parts[0]), later.result()]
        finally:
            later.exception()

    def _replay(self, batches: Any, rates: Tensor) -> Tensor:
        """Take as many steps as there are rates by a captured graph; return the losses [N, S]."""
        count = len(rates)
        if count not in self._graphs:
            self._graphs[count] = _Captured(self, batches, rates)
        return self._graphs[count].run(batches, rates)

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
            score = None if accuracy is None else float(accuracy[0] + accuracy[-1])
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
        with torch.no_grad():
            outputs = network.forward(self._weights, self._shape, held.expand(len(self.seeds), *held.shape))
        embeddings = functional.normalize(outputs, dim=2)
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
