"""Many fits on stored features: every combination of what may vary, the seeds of each trained together.

A sweep holds no state of its own. What is done is told by the runs on disk, whose ids are content addresses, so a sweep
that was killed goes on by being called again, a second call does nothing, and a label changed in one dataset costs that
dataset's runs alone. The result is one Parquet file, one row per run, prefix and level, written when all is done.

The unit of a sweep: fit and score one point of its grid, named by content, on any device of any process.

A point writes runs and their scores into the artifacts folder under content addresses and tells nothing else, so who
does it does not matter: this process, one per device (`pipeline.stages.parallel`), a cluster's. Whoever asked
goes over the grid afterwards, finds everything done, and writes the results from what lies there. Two that do one point
at the same time both succeed, and the first one's files stay. The alternative, sending results back, would be a second
way for them to be lost.

On a CPU a point's bits depend neither on threads nor on who did it: seeds and halves of batches are what is shared
(`heads.fitting`), and neighbours are compared in whole units (`heads.knn`). A GPU draws other random numbers
than a CPU, and its heads differ from a CPU's as two seeds do.
"""

from __future__ import annotations

import contextlib
import itertools
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import polars as pl

import heads
from cache.workers import current
from heads.methods import SCHEDULES
from heads.presets import PRESETS
from pipeline.errors import PipelineError
from pipeline.evaluation.embeddings import run_scorable
from pipeline.evaluation.score import score, stored_scores
from pipeline.evaluation.scores import Score
from pipeline.stages.fit import FitRequest, fit, plan
from pipeline.workspace.artifacts import Artifacts
from pipeline.workspace.features import LabelledFeatures, labelled_features
from pipeline.workspace.runs import Run, is_run

PROTOCOL, NEIGHBOURS = "gallery", 5


@dataclass(frozen=True)
class Swept:
    """Runs of a point, in the order of the seeds, or of a whole sweep; their scores; the ids of those trained now."""

    runs: list[Run]
    scores: list[Score]
    trained: frozenset[str]


class LoadedFeatures:
    """The features of points: datasets are loaded once, vectors kept while points on them follow one another."""

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts
        self._known: dict[tuple[Any, ...], LabelledFeatures] = {}
        self._last: tuple[Any, ...] | None = None

    def of(self, point: Point) -> LabelledFeatures:
        """The dataset and the store that a point is fitted on.

        :raises PipelineError: if no store or several fit.
        """
        wanted = dataset, backbone, layer = point.dataset, point.backbone, point.layer
        if self._last not in (None, wanted):
            self._known[self._last] = replace(self._known[self._last])  # a copy that has gathered nothing yet
        if wanted not in self._known:
            found = labelled_features(self._artifacts, dataset=dataset, backbone=backbone, layer=layer)
            self._known[wanted] = found
        self._last = wanted
        return self._known[wanted]


def do_point(artifacts: Artifacts, point: Point, device: str, features: LabelledFeatures) -> Swept:
    """Fit a point's seeds together and score them, as far as that is not done yet.

    :param device: "auto", "cpu", "cuda" or "cuda:N", for the fit and the search for neighbours.
    :param features: the point's (`LoadedFeatures`).
    :raises heads.HeadsError: if method, preset, labels or settings cannot be used, or a loss is not finite.
    :raises PipelineError: if texts of the dataset were not embedded.
    """
    folders = plan(artifacts, features, point.fit).runs.values()
    # a device is not asked for, which may be lost by now, where there is nothing to do
    with contextlib.nullcontext() if _is_done(folders) else current(device):
        fitted = fit(artifacts, features, point.fit, device=device)
        searching = device if device.startswith("cuda") else None
        scores = [score(run_scorable(run, features), PROTOCOL, NEIGHBOURS, device=searching) for run in fitted.runs]
    return Swept(fitted.runs, scores, fitted.trained)


def to_do(artifacts: Artifacts, points: Iterable[Point], at_hand: LoadedFeatures) -> tuple[list[Point], frozenset[str]]:
    """Points of which something is missing, and the ids of all runs not trained yet; reads no vector.

    :raises heads.HeadsError: if a method or a setting cannot be used.
    :raises PipelineError: if no store or several fit.
    """
    missing, untrained = [], set()
    for point in points:
        folders = plan(artifacts, at_hand.of(point), point.fit).runs.values()
        untrained |= {folder.name for folder in folders if not is_run(folder)}
        if not _is_done(folders):
            missing.append(point)
    return missing, frozenset(untrained)


def _is_done(folders: Iterable[Path]) -> bool:
    return all(is_run(folder) and _is_scored(folder) for folder in folders)


def _is_scored(folder: Path) -> bool:
    return any((record.protocol, record.k) == (PROTOCOL, NEIGHBOURS) for record in stored_scores(folder))


_KINDS = dict.fromkeys(("seeds", "layers", "epochs", "batch_sizes"), int) | {"lrs": float}
"""Types of the axes that hold numbers; the others hold names."""


@dataclass(frozen=True)
class Grid:
    """The values of each axis. None on an axis means the default: the current dataset, the method's own setting."""

    methods: tuple[str, ...] = ("v5", "mrl", "joint")
    seeds: tuple[int, ...] = (42,)
    heads: tuple[str, ...] = ("paper",)
    datasets: tuple[str | None, ...] = (None,)
    backbones: tuple[str | None, ...] = (None,)
    layers: tuple[int, ...] = (-1,)
    epochs: tuple[int | None, ...] = (None,)
    batch_sizes: tuple[int | None, ...] = (None,)
    lrs: tuple[float | None, ...] = (None,)
    schedules: tuple[str | None, ...] = (None,)

    @staticmethod
    def of(values: Mapping[str, Any], origin: str) -> Grid:
        """A grid of the axes given; single values count as lists of one.

        :raises PipelineError: if an axis is unknown or empty.
        """
        known = [field.name for field in fields(Grid)]
        unknown = [name for name in values if name not in known]
        if unknown:
            raise PipelineError(f"{origin}: unknown axis {', '.join(unknown)}", f"use {', '.join(known)}")
        axes = {name: tuple(value) if isinstance(value, list | tuple) else (value,) for name, value in values.items()}
        empty = [name for name, axis in axes.items() if not axis]
        if empty:
            raise PipelineError(f"{origin}: axis {empty[0]} is empty", "give it a value or leave it out")
        return Grid(**{name: _checked(name, axis, origin) for name, axis in axes.items()})


@dataclass(frozen=True)
class Point:
    """One combination: the features, and what is fitted on them."""

    dataset: str | None
    backbone: str | None
    layer: int
    fit: FitRequest
    work: ClassVar[float] = 1.0
    """Its share of a sweep: none is known to take longer than another."""

    @property
    def name(self) -> str:
        """What a message calls it."""
        return f"{self.fit.method}, {self.fit.head}" + ("" if self.dataset is None else f" on {self.dataset}")


def _checked(name: str, axis: tuple[Any, ...], origin: str) -> tuple[Any, ...]:
    """The values of an axis in its own type, each once."""
    kind = _KINDS.get(name, str)
    wrong = [v for v in axis if not isinstance(v, (int, float) if kind is float else kind) or isinstance(v, bool)]
    if wrong:
        raise PipelineError(f"{origin}: {name} has {wrong[0]!r}", f"give values of type {kind.__name__}")
    known = {"methods": tuple(heads.METHODS), "heads": tuple(PRESETS), "schedules": SCHEDULES}.get(name, axis)
    unknown = [value for value in axis if value not in known]
    if unknown:
        raise PipelineError(f"{origin}: {name} has {unknown[0]!r}", f"use {', '.join(known)}")
    return tuple(dict.fromkeys(kind(value) for value in axis))


def points(grid: Grid) -> Iterator[Point]:
    """Every combination but the seeds, those on the same features next to one another."""
    features = itertools.product(grid.datasets, grid.backbones, grid.layers)
    settings = itertools.product(grid.heads, grid.epochs, grid.batch_sizes, grid.lrs, grid.schedules)
    for (dataset, backbone, layer), method, chosen in itertools.product(features, grid.methods, settings):
        yield Point(dataset, backbone, layer, FitRequest(method, grid.seeds, *chosen))


def read_grid(path: Path) -> dict[str, Any]:
    """The axes of a TOML file, such as `methods = ["v5", "mrl"]`.

    :raises PipelineError: if it is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PipelineError(f"{path} is not TOML: {error}", 'write lines such as methods = ["v5", "mrl"]') from error


def results_frame(runs: Sequence[Run], scores: Sequence[Score]) -> pl.DataFrame:
    """One row per run, protocol, prefix and level: what determined the run, and what was measured."""
    by_id = {run.id: run for run in runs}
    rows = []
    for scored in scores:
        identity = scored.identity
        run = by_id[str(identity.run)]
        facts = {name: getattr(identity, name) for name in ("run", "dataset", "backbone", "method", "head", "seed")}
        facts |= {"layer": run.record["layer"], "seconds": run.record["seconds"]}
        facts |= {name: run.record["hyperparameters"][name] for name in ("epochs", "batch_size", "lr", "schedule")}
        for prefix in scored.prefixes:
            for level in prefix.levels:
                measured = {name: getattr(level, name) for name in ("level", "accuracy", "macro", "classifier")}
                rows.append(
                    {**facts, "protocol": scored.protocol, "k": scored.k, "dim": prefix.dim, **measured}
                    | {"ci_low": level.ci95[0], "ci_high": level.ci95[1], "steerability": scored.steerability}
                )
    return pl.DataFrame(rows, infer_schema_length=None)
