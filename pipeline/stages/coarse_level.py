"""A coarse level for labels that have none: classes whose texts lie close together, under one derived label.

The centroids of the classes, means of the unit features of their training rows, are clustered by Ward's method (scipy),
which has no seed. What comes out is a mapping file, which is then the dataset's hierarchy like any that a person gives:
edit its names and feed it back with --hierarchy. It is a guess about the features, not knowledge: on CLINC150's intents
ten such clusters agree with the ten real domains at an adjusted Rand index of 0.43 (`benchmarks/data/one_level.py`);
k-means on the same centroids, best of twenty starts, at 0.32, average linkage at 0.29.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import cut_tree, linkage

import data
from pipeline.errors import PipelineError
from pipeline.workspace.artifacts import Artifacts, Current, DatasetSource
from pipeline.workspace.features import LabelledFeatures
from pipeline.workspace.records import write_json

_NAMED_BY = 3
"""A cluster is called after so many of its classes, those nearest to its centre."""


def clusters(centroids: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Cluster of each class, int64 [C], by Ward's method on the centroids [C, H] scaled to unit length.

    :param count: how many clusters, at least 2 and fewer than classes.
    """
    lengths = np.linalg.norm(centroids, axis=1, keepdims=True)
    units = centroids / np.where(lengths > 0, lengths, 1)
    return np.asarray(cut_tree(linkage(units, "ward"), count).ravel(), np.int64)


def class_centroids(
    features: NDArray[np.float32], paths: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The classes that occur, ascending [C], and the mean of the unit features of each, float64 [C, H].

    :param features: [n, H].
    :param paths: labels, int64 [n, L], coarsest first, -1 for none; the finest count.
    """
    labels = paths[:, -1]
    found, places = np.unique(labels[labels >= 0], return_inverse=True)
    rows = features[labels >= 0]
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    sums = np.zeros((len(found), features.shape[1]))
    np.add.at(sums, places, rows / np.where(lengths > 0, lengths, 1))
    return found, sums / np.bincount(places)[:, None]


def with_coarse_level(
    artifacts: Artifacts, source: DatasetSource, features: LabelledFeatures, count: int
) -> data.Dataset:
    """Derive `count` coarse classes from the training rows' features, write them down, and take them as hierarchy.

    The dataset with the made level becomes the current one; no feature is computed again.

    A mapping that was made before, whatever names were edited since, is taken as it is.

    :raises PipelineError: if the dataset has several levels, or too few classes with training rows.
    """
    dataset = features.dataset
    if len(dataset.levels) > 1:
        raise PipelineError(
            f"{dataset.id} has {len(dataset.levels)} levels: {' > '.join(dataset.levels)}",
            "leave --make-coarse out, or name the one level that it is to be made for: --levels NAME",
        )
    if source.source in data.BUILT_IN:
        raise PipelineError(f"{source.source} is built in with its levels", "leave --make-coarse out")
    path = artifacts.datasets / "coarse" / f"{dataset.id}-{count}-{features.store.folder.name}.json"
    if not path.exists():
        _write(path, dataset, features, count)
    made = replace(source, description=replace(source.description, hierarchy=str(path.resolve())))
    whole = artifacts.load_dataset(made)
    artifacts.remember(Current(made, whole.id, features.source, artifacts.current().stores))
    return whole


def _write(path: Path, dataset: data.Dataset, features: LabelledFeatures, count: int) -> None:
    """Cluster the classes that have training rows; the others stand in a group of their own."""
    found, centroids = class_centroids(*features.split("train"))
    if not 2 <= count < len(found):
        raise PipelineError(
            f"--make-coarse {count} of {len(found):,} classes that have training rows",
            f"give a number from 2 to {len(found) - 1}",
        )
    names = dataset.hierarchy.classes[0]
    groups = _named(clusters(centroids, count), centroids, [names[one] for one in found])
    if unseen := [name for place, name in enumerate(names) if place not in found]:
        groups["no training rows"] = unseen
    derived = f"{count} clusters of the centroids of classes, from training rows' features of {features.backbone}"
    write_json(path, {"derived": derived, "hierarchy": groups}, ascii_only=False)


def _named(of_class: NDArray[np.int64], centroids: NDArray[np.float64], names: list[str]) -> dict[str, list[str]]:
    """Clusters, each under a name made of the classes nearest to its centre."""
    groups: dict[str, list[str]] = {}
    for one in np.unique(of_class):
        members = np.flatnonzero(of_class == one)
        near = np.linalg.norm(centroids[members] - centroids[members].mean(axis=0), axis=1)
        typical = [names[members[place]] for place in np.argsort(near, kind="stable")[:_NAMED_BY]]
        more = f" and {len(members) - _NAMED_BY} more" if len(members) > _NAMED_BY else ""
        groups[f"{', '.join(typical)}{more}" if len(members) > 1 else f"{typical[0]} alone"] = [
            names[member] for member in members
        ]
    return groups
