"""Many fits on stored features: every combination of what may vary, the seeds of each trained together.

A sweep holds no state of its own. What is done is told by the runs on disk, whose ids are content addresses, so a sweep
that was killed goes on by being called again, a second call does nothing, and a label changed in one dataset costs that
dataset's runs alone. The result is one Parquet file, a row a run, prefix and level, written when all is done.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import polars as pl

import heads
from heads.methods import SCHEDULES
from heads.presets import PRESETS
from pipeline.errors import PipelineError
from pipeline.fit import FitSettings
from pipeline.runs import Run

_KINDS: Mapping[str, type] = {
    "methods": str,
    "seeds": int,
    "heads": str,
    "datasets": str,
    "backbones": str,
    "layers": int,
    "epochs": int,
    "batch_sizes": int,
    "lrs": float,
    "schedules": str,
}


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
    """One combination: the features it is fitted on, the method and the settings."""

    dataset: str | None
    backbone: str | None
    layer: int
    method: str
    settings: FitSettings


def _checked(name: str, axis: tuple[Any, ...], origin: str) -> tuple[Any, ...]:
    """The values of an axis in its own type, each once."""
    kind = _KINDS[name]
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
        yield Point(dataset, backbone, layer, method, FitSettings(*chosen))


def read_grid(path: Path) -> dict[str, Any]:
    """The axes of a TOML file, such as `methods = ["v5", "mrl"]`.

    :raises PipelineError: if it is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PipelineError(f"{path} is not TOML: {error}", 'write lines such as methods = ["v5", "mrl"]') from error


def results_frame(runs: Sequence[Run], scores: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """A row a run, protocol, prefix and level: what determined the run, and what was measured."""
    by_id = {run.id: run for run in runs}
    rows = []
    for score in scores:
        run = by_id[score["run"]]
        facts = {name: score[name] for name in ("run", "dataset", "backbone", "method", "head", "seed")}
        facts |= {"layer": run.record["layer"], "seconds": run.record["seconds"]}
        facts |= {name: run.record["hyperparameters"][name] for name in ("epochs", "batch_size", "lr", "schedule")}
        for prefix in score["prefixes"]:
            for level in prefix["levels"]:
                low, high = level["ci95"]
                measured = {name: level[name] for name in ("level", "accuracy", "macro", "classifier")}
                rows.append(
                    {**facts, "protocol": score["protocol"], "k": score["k"], "dim": prefix["dim"], **measured}
                    | {"ci_low": low, "ci_high": high, "steerability": score["steerability"]}
                )
    return pl.DataFrame(rows, infer_schema_length=None)
