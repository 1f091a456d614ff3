"""The fit: features and labels in, trained heads out.

Features, labels and everything random lie on the device before a step starts, each distinct row goes through the head
once a step, and gradients are written by hand into one flat vector (`heads/network.py`), so that clipping is one norm
and AdamW one operation. What is left of a step is some 250 operations.

On a GPU all seeds are trained together, as the leading dimension of every tensor (`heads/training/trainer.py`): ten
cost little more than one. On a CPU, where arithmetic is what costs, nothing is won by that, so each seed has its steps
to itself, and as many seeds are trained at once as there are cores; a single one takes two. The library's own threads
are put aside meanwhile: it would share out each operation of some microseconds among cores that then wait for one
another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event
from typing import Any

import numpy as np
import torch

from heads.errors import HeadsError
from heads.head import FractalHead, Labelling
from heads.methods import hyperparameters, method_named
from heads.presets import HeadShape, preset
from heads.training.inputs import checked_inputs
from heads.training.trainer import Trainer


@dataclass(frozen=True)
class FitProgress:
    """How far a fit is: `step` of `steps` in `epoch` (from 1) of `epochs`, counting the steps of all seeds.

    `loss` is the mean since the last report of one seed; None on a GPU, where asking would make the device wait.
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
    `best_epoch` (from 1) is the epoch kept; `seconds` are this seed's share of the time spent training.
    """

    head: FractalHead
    seed: int
    history: list[dict[str, Any]]
    best_epoch: int
    seconds: float
    parameters: int


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
    schedule: str | None = None,
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
        schedule=schedule,
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
    schedule: str | None = None,
    device: str = "auto",
    progress: Callable[[FitProgress], None] | None = None,
) -> list[FitResult]:
    """Train a head a seed; each is what it would be if trained alone (bit for bit on a CPU).

    On a GPU, products are taken in TF32 meanwhile, whatever torch's setting; it is put back afterwards.

    :param features: real [n, H], raw as pooled; they are L2-normalised here.
    :param labels: integers [n, L], L >= 2, coarsest first, from 0; each class has one parent.
    :param seeds: of initialisation, sampling and dropout.
    :param method: a row of METHODS.
    :param validation: features and labels that choose the epoch kept; without them the last one is kept.
    :param head: a row of PRESETS.
    :param epochs: by default the method's own, as `batch_size`, `lr` and `schedule`.
    :param schedule: of the learning rate: "constant" or "one-cycle", whose peak is `lr`.
    :param device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1".
    :param progress: called some times an epoch.
    :raises HeadsError: if the input does not fit together, holds NaN, has no two rows of one finest class or a class
        under two parents; if a name is unknown or a setting cannot be used; if a loss is not finite.
    """
    settings = hyperparameters(method, epochs=epochs, batch_size=batch_size, lr=lr, schedule=schedule)
    row, shape_row = method_named(method), preset(head)
    if not seeds:
        raise HeadsError("no seeds", "give at least one seed")
    where = _device(device)
    inputs = checked_inputs(features, labels, validation, where)
    shape = HeadShape.of(
        shape_row,
        inputs.features.shape[1],
        inputs.classes,
        proxy_temperature=row.settings.get("proxy_temperature"),
    )
    with _cores(where) as (cores, helper):
        groups = [list(seeds)] if where.type == "cuda" else [[seed] for seed in seeds]
        trainers = [
            Trainer(inputs, row, shape, group, settings, helper if len(groups) == 1 else None) for group in groups
        ]
        count = _Counter(progress, method, settings["epochs"], sum(trainer.steps for trainer in trainers))
        if len(trainers) == 1 or cores == 1:
            for trainer in trainers:
                _train(trainer, settings["epochs"], count.tell)
        else:
            _train_at_once(trainers, settings["epochs"], count.tell, cores)
    labelling = Labelling(inputs.parents, trainers[0].objective.supervised)
    return [
        FitResult(
            FractalHead(shape, trainer.best[s].cpu().clone(), labelling, method=method, preset=head),
            seed,
            trainer.histories[s],
            trainer.best_epochs[s],
            trainer.seconds / len(trainer.seeds),
            shape.parameters,
        )
        for trainer in trainers
        for s, seed in enumerate(trainer.seeds)
    ]


class _Counter:
    """Turns steps done, by whichever seed, into reports."""

    def __init__(self, progress: Callable[[FitProgress], None] | None, method: str, epochs: int, steps: int) -> None:
        self._progress, self._method, self._epochs, self._steps, self._done = progress, method, epochs, steps, 0

    def tell(self, steps: int, loss: float | None) -> None:
        self._done += steps
        if self._progress is not None:
            epoch, step = divmod(self._done - 1, self._steps)
            self._progress(FitProgress(self._method, epoch + 1, self._epochs, step + 1, self._steps, loss))


def _train(trainer: Trainer, epochs: int, tell: Callable[[int, float | None], None]) -> None:
    for epoch in range(1, epochs + 1):
        trainer.epoch(epoch, tell)


class _Stopped(Exception):
    """Another seed failed, or the caller was interrupted."""


def _train_at_once(
    trainers: Sequence[Trainer], epochs: int, tell: Callable[[int, float | None], None], cores: int
) -> None:
    """Train a seed a thread; reports reach the caller in the caller's own thread."""
    news: SimpleQueue[tuple[int, float | None] | None] = SimpleQueue()
    stop = Event()

    def report(steps: int, loss: float | None) -> None:
        if stop.is_set():
            raise _Stopped
        news.put((steps, loss))

    def work(trainer: Trainer) -> None:
        try:
            if not stop.is_set():
                _train(trainer, epochs, report)
        except BaseException:
            stop.set()
            raise
        finally:
            news.put(None)

    with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = [pool.submit(work, trainer) for trainer in trainers]
        try:
            for _ in futures:
                while (item := news.get()) is not None:
                    tell(*item)
        except BaseException:
            stop.set()
            raise
    failures = [failure for future in futures if (failure := future.exception()) is not None]
    if failures:
        raise next((failure for failure in failures if not isinstance(failure, _Stopped)), failures[0])


@contextmanager
def _cores(device: torch.device) -> Iterator[tuple[int, ThreadPoolExecutor | None]]:
    """Take the library's threads over: give their number, and a thread that helps where there is one.

    A GPU multiplies in TF32 meanwhile: the products of ten seeds take half the time, and no accuracy moves by more than
    another seed does.
    """
    cores = torch.get_num_threads()
    if device.type == "cuda":
        exact = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = True
        try:
            yield cores, None
        finally:
            torch.backends.cuda.matmul.allow_tf32 = exact
        return
    if cores == 1:
        yield cores, None
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as helper:
            yield cores, helper
    finally:
        torch.set_num_threads(cores)


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
