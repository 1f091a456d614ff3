"""The fit: features and labels in, trained heads out.

Features, labels and everything random lie on the device before a step starts, each distinct row goes through the head
once a step, and the gradients are autograd's. On a GPU they are laid side by side, so that clipping is one norm and
AdamW one operation.

On a GPU all seeds are trained together, as the leading dimension of every tensor (`heads/training/trainer.py`): ten
cost little more than one. On a CPU, where arithmetic is what costs, nothing is won by that, so each seed has its steps
to itself, and as many seeds are trained at once as there are cores; a single one takes two where its steps have many
rows, else hardly more than one. The library's own threads are put aside meanwhile: it would share out each operation of
some microseconds among cores that then wait for one another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from threading import Event
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from heads.choosing import Choice
from heads.choosing import choose as choose_among
from heads.closed_form import (
    class_proxies,
    closed_form_head,
    common_direction,
    linear_map,
    standardised,
    with_shrinkage,
)
from heads.errors import HeadsError
from heads.head import FractalHead, Labelling
from heads.methods import Method, head_of, hyperparameters, is_chosen, method_named
from heads.presets import HeadShape, Preset, preset
from heads.training.inputs import Inputs, checked_inputs
from heads.training.trainer import Trainer

_CENTRED = "features centred first, since they mostly point one way"


@dataclass(frozen=True)
class FitProgress:
    """How far a fit is: `step` of `steps` in `epoch` (from 1) of `epochs`, counting the steps of all seeds.

    `share` is what is done of the whole, 0 to 1. `loss` is the mean since the last report of one seed; None on a GPU,
    where asking would make the device wait.
    """

    method: str
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float | None
    share: float


@dataclass(frozen=True)
class FitResult:
    """A trained head and how it came about.

    `history` has a row an epoch: epoch, loss, lr, score and the accuracy a level (None without validation);
    `best_epoch` (from 1) is the epoch kept; `seconds` are this seed's share of the time spent training; `chosen` is
    what the data decided, with its `reason`. Of a method in closed form, `seed` and `best_epoch` are 0.
    """

    head: FractalHead
    seed: int
    history: list[dict[str, Any]]
    best_epoch: int
    seconds: float
    parameters: int
    chosen: dict[str, Any] = field(default_factory=dict)


def fit(
    features: Any,
    labels: Any,
    *,
    method: str = "joint",
    validation: tuple[Any, Any] | None = None,
    head: str | None = None,
    seed: int = 42,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    schedule: str | None = None,
    classes: Sequence[int] | None = None,
    device: str | torch.device = "auto",
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
        classes=classes,
        device=device,
        progress=progress,
    )
    return results[0].head


def fit_many(
    features: Any,
    labels: Any,
    *,
    seeds: Sequence[int],
    method: str = "joint",
    validation: tuple[Any, Any] | None = None,
    head: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    schedule: str | None = None,
    classes: Sequence[int] | None = None,
    device: str | torch.device = "auto",
    choice: Choice | None = None,
    progress: Callable[[FitProgress], None] | None = None,
) -> list[FitResult]:
    """Train one head per seed; each is what it would be if trained alone (bit for bit on a CPU).

    A method in closed form (`lda`, `pca`, `features`) has no seed and gives one head, whatever `seeds` are.

    On a GPU, products are taken in TF32 meanwhile, whatever torch's setting; it is put back afterwards.

    :param features: real [n, H], raw as pooled; they are L2-normalised here.
    :param labels: [n, L], coarsest level first, integers, strings or any hashable; each class has one parent. A row may
        lack its finer labels: -1 (or None) from some level on.
    :param seeds: of initialisation, sampling and dropout.
    :param method: a row of METHODS.
    :param validation: features and labels that choose the epoch kept; without them the last one is kept.
    :param head: a row of PRESETS; by default the method's own.
    :param epochs: by default the method's own, as `batch_size`, `lr` and `schedule`.
    :param schedule: of the learning rate: "constant" or "one-cycle", whose peak is `lr`.
    :param classes: the class counts per level, if labels are class numbers from 0 already: a class that no row has then
        keeps its place. By default the classes are the distinct labels, sorted.
    :param device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1".
    :param choice: what `choose` chose; by default chosen here where the method asks for it (`joint`) and neither `head`
        nor `epochs` is given. Where the closed form alone is chosen there is one result, whatever `seeds` are.
    :param progress: called some times per epoch.
    :raises HeadsError: if the input does not fit together, holds NaN, has no two rows of one finest class or a class
        under two parents; if a name is unknown or a setting cannot be used; if a loss is not finite.
    """
    row = method_named(method)
    settings = hyperparameters(method, epochs=epochs, batch_size=batch_size, lr=lr, schedule=schedule)
    if head is not None:
        preset(head)  # a misspelt name is refused by methods too that have one head
    if not isinstance(seeds, Iterable):
        raise HeadsError(f"seeds is {seeds!r}", "give a list of seeds")
    seeds = [seed.item() if hasattr(seed, "item") else seed for seed in seeds]  # of numpy or torch
    if not seeds:
        raise HeadsError("no seeds", "give at least one seed")
    where = _device(device)
    choosing = choice is None and is_chosen(method, head, epochs)
    inputs = checked_inputs(features, labels, validation, where, classes=classes, every_held_row=choosing)
    if choosing:
        inputs = with_shrinkage(inputs)
        choice = _choice(row, settings, inputs)
    if choice is not None:
        inputs = replace(inputs, shrinkage=choice.shrinkage)
    if row.closed_form or (choice is not None and choice.closed_form):
        return [_closed_form(method, inputs, choice)]
    if choice is not None:
        head, settings = choice.head, {**settings, "epochs": choice.epochs}
        inputs = replace(inputs, validation=None, validation_labels=None)  # the epochs are chosen: the last is kept
    results = _trained(inputs, row, preset(head_of(method, head)), settings, seeds, progress)
    return results if choice is None else [replace(result, chosen=choice.to_json()) for result in results]


def choose(
    features: Any,
    labels: Any,
    *,
    method: str = "joint",
    validation: tuple[Any, Any] | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    schedule: str | None = None,
    classes: Sequence[int] | None = None,
    device: str | torch.device = "auto",
) -> Choice:
    """Choose what `fit_many` would train if told neither head nor epochs; see there, and `heads/choosing.py`."""
    settings = hyperparameters(method, batch_size=batch_size, lr=lr, schedule=schedule)
    inputs = checked_inputs(features, labels, validation, _device(device), classes=classes, every_held_row=True)
    return _choice(method_named(method), settings, with_shrinkage(inputs))


def _choice(row: Method, settings: dict[str, Any], inputs: Inputs) -> Choice:
    def train(part: Inputs, head: str, epochs: int) -> FractalHead:
        if not epochs:
            return closed_form_head(head, part)[0].to(part.features.device)
        alone = replace(part, validation=None, validation_labels=None)
        result = _trained(alone, row, preset(head), {**settings, "epochs": epochs}, [0], None)[0]
        return result.head.to(part.features.device)

    return replace(choose_among(inputs, train), shrinkage=inputs.shrinkage)


def _trained(
    inputs: Inputs,
    row: Method,
    shape_row: Preset,
    settings: dict[str, Any],
    seeds: Sequence[int],
    progress: Callable[[FitProgress], None] | None,
) -> list[FitResult]:
    """Train heads on checked inputs."""
    where = inputs.features.device
    inputs, begin, centring = _begun(shape_row, inputs)
    temperature = row.settings.get("proxy_temperature")
    shape = HeadShape.of(shape_row, inputs.features.shape[1], inputs.classes, proxy_temperature=temperature)
    with _cores(where) as (cores, helper):
        groups = [list(seeds)] if where.type == "cuda" else [[seed] for seed in seeds]
        trainers = [
            Trainer(inputs, row, shape, group, settings, helper if len(groups) == 1 else None, begin)
            for group in groups
        ]
        done, steps, epochs = 0, sum(trainer.steps for trainer in trainers), settings["epochs"]

        def tell(more: int, loss: float | None) -> None:
            """Report steps done, by whichever seed."""
            nonlocal done
            done += more
            if progress is not None:
                epoch, step = divmod(done - 1, steps)
                share = done / (epochs * steps)
                progress(FitProgress(row.name, epoch + 1, epochs, step + 1, steps, loss, share))

        if len(trainers) == 1 or cores == 1:
            for trainer in trainers:
                trainer.train(epochs, tell)
        else:
            _train_at_once(trainers, epochs, tell, cores)
    labelling = Labelling(inputs.parents, trainers[0].objective.supervised, inputs.names)
    return [
        FitResult(
            FractalHead(
                shape, trainer.best[s].cpu().clone(), labelling, method=row.name, preset=shape_row.name, **centring
            ),
            seed,
            trainer.histories[s],
            trainer.best_epochs[s],
            trainer.seconds / len(trainer.seeds),
            shape.parameters,
            {"centred": True, "reason": _CENTRED} if "centre" in centring and not shape_row.from_lda else {},
        )
        for trainer in trainers
        for s, seed in enumerate(trainer.seeds)
    ]


def _closed_form(method: str, inputs: Inputs, choice: Choice | None) -> FitResult:
    """The head of a method without training steps, or of one that chose to take none."""
    began = time.perf_counter()
    head, found = closed_form_head(method if choice is None else choice.closed, inputs)
    head.method = method
    nothing = {f"accuracy_{level}": None for level in range(len(inputs.classes))}
    history = [{"epoch": 0, "loss": None, "lr": None, "score": None, **nothing}]
    seconds = time.perf_counter() - began
    return FitResult(
        head,
        0,
        history,
        0,
        seconds,
        head.parameters_count,
        {**found.chosen, "reason": found.reason} if choice is None else choice.to_json(),
    )


def _begun(row: Preset, inputs: Inputs) -> tuple[Inputs, dict[str, Tensor] | None, dict[str, Any]]:
    """What a head begins with: centred inputs, tensors of `lda` where it begins there, the features' centre and scale.

    Any other head, the published one among them, takes features as they are, unless they mostly point one way, as
    those of a decoder's inner layers do: from these it learns next to nothing before they are centred.
    """
    if row.from_lda:
        found = linear_map("lda", inputs, row.scales * row.scale_dim)
        embeddings = functional.normalize(found.embed(inputs.features), dim=1)
        begin = {"input.weight": found.weight, "input.bias": torch.zeros(len(found.weight))}
        begin |= class_proxies(embeddings, inputs)
        centring = found.centre, found.scale
    elif (direction := common_direction(inputs.features)) is not None:
        begin, centring = None, direction
    else:
        return inputs, None, {}
    rows = standardised(inputs.features, *centring)
    held = None if inputs.validation is None else standardised(inputs.validation, *centring)
    centred = replace(inputs, features=rows, validation=held, scatter=None)
    return centred, begin, {"centre": centring[0].cpu(), "scale": centring[1]}


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
                trainer.train(epochs, report)
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


def _device(name: str | torch.device) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise HeadsError(f"unknown device {str(name)!r}", "use auto, cpu or cuda") from error
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and not torch.cuda.is_available()):
        raise HeadsError(f"device {str(name)!r} is not available here", "use auto or cpu")
    return device
