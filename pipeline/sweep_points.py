"""The unit of a sweep: fit and score one point of its grid, named by content, on any device of any process.

A point writes runs and their scores into the artifacts folder under content addresses and tells nothing else, so who
does it does not matter: this process, one a device (`pipeline.sweep_processes`), a cluster's. Whoever asked goes
over the grid afterwards, finds everything done, and writes the results from what lies there. Two that do one point at
the same time both succeed, and the first one's files stay. The alternative, sending results back, would be a second way
for them to be lost.

On a CPU a point's bits depend neither on threads nor on who did it: seeds and halves of batches are what is shared out
(`heads.training`), and neighbours are compared in whole units (`heads.neighbours`). A GPU draws other random numbers
than a CPU, and its heads differ from a CPU's as two seeds do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cache.devices import current
from pipeline.artifacts import Artifacts
from pipeline.features import LabelledFeatures, labelled_features
from pipeline.fit import fit, run_folders
from pipeline.runs import Run, is_run
from pipeline.score import score, stored_scores
from pipeline.subjects import run_subject
from pipeline.sweep import Point

PROTOCOL, NEIGHBOURS = "gallery", 5


@dataclass(frozen=True)
class PointDone:
    """A point's runs in the order of the seeds, their score records, and the ids of those trained just now."""

    runs: list[Run]
    scores: list[dict[str, Any]]
    trained: frozenset[str]


class FeaturesAtHand:
    """The features of points: datasets are loaded once, vectors kept while points on them follow one another."""

    def __init__(self, artifacts: Artifacts) -> None:
        """Read nothing yet."""
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


def do_point(
    artifacts: Path,
    point: Point,
    seeds: Sequence[int],
    device: str = "auto",
    *,
    features: LabelledFeatures | None = None,
) -> PointDone:
    """Fit a point's seeds together and score them, as far as that is not done yet.

    :param artifacts: the artifacts folder.
    :param device: "auto", "cpu", "cuda" or "cuda:N", for the fit and the search for neighbours.
    :param features: the point's, where they are at hand (`FeaturesAtHand`); else they are read.
    :raises heads.HeadsError: if method, preset, labels or settings cannot be used, or a loss is not finite.
    :raises PipelineError: if no store or several fit, or texts of the dataset were not embedded.
    """
    where = Artifacts(artifacts)
    features = features or FeaturesAtHand(where).of(point)
    folders = run_folders(where, features, point.method, seeds, point.settings)
    # a device is not asked for, which may be lost by now, where there is nothing to do
    with contextlib.nullcontext() if _is_done(folders) else current(device):
        fitted = fit(where, features, point.method, seeds, point.settings, device=device)
        searching = device if device.startswith("cuda") else None
        scores = [score(run_subject(run, features), PROTOCOL, NEIGHBOURS, device=searching) for run in fitted.runs]
    return PointDone(fitted.runs, scores, fitted.trained)


@dataclass(frozen=True)
class ToDo:
    """Points of which something is missing, and the ids of all runs that are not trained yet."""

    points: list[Point]
    untrained: frozenset[str]


def to_do(artifacts: Artifacts, points: Iterable[Point], seeds: Sequence[int], at_hand: FeaturesAtHand) -> ToDo:
    """Look what `do_point` would not find there; reads datasets and records, no vector.

    :raises heads.HeadsError: if a method or a setting cannot be used.
    :raises PipelineError: if no store or several fit.
    """
    missing, untrained = [], set()
    for point in points:
        folders = run_folders(artifacts, at_hand.of(point), point.method, seeds, point.settings)
        untrained |= {folder.name for folder in folders if not is_run(folder)}
        if not _is_done(folders):
            missing.append(point)
    return ToDo(missing, frozenset(untrained))


def _is_done(folders: Iterable[Path]) -> bool:
    return all(is_run(folder) and _is_scored(folder) for folder in folders)


def _is_scored(folder: Path) -> bool:
    return any((record["protocol"], record["k"]) == (PROTOCOL, NEIGHBOURS) for record in stored_scores(folder))
