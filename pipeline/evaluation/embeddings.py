"""What can be scored: a trained head, features that no one trained, embeddings that were made elsewhere.

All three are vectors of a dataset's texts, cut into prefixes, so all three are asked the same questions by the same
code (`score.py`). It makes its vectors when they are asked for and not before: a stored score needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import data
from pipeline.errors import PipelineError
from pipeline.evaluation.baselines import BASELINES, baseline_dims, untrained
from pipeline.evaluation.external_embeddings import read_embeddings
from pipeline.evaluation.predictions import Ints
from pipeline.evaluation.protocols import Vectors
from pipeline.workspace.artifacts import Artifacts
from pipeline.workspace.features import LabelledFeatures
from pipeline.workspace.runs import Run

Split = Callable[[str], tuple[Vectors, Ints]]


@dataclass(frozen=True)
class Scorable:
    """Vectors [n, D] of a dataset's texts, to be scored at their prefixes.

    `facts` name it in records. `dims`: the prefixes. `split`: from "train" or "test" to vectors and labels [n, L].
    `hierarchy`: the tree of the labels. `folder`: where its scores are kept, None if nowhere. `classify`: accuracies
    [J, L] of its own classifiers on the test split, if it has any.
    """

    facts: Mapping[str, Any]
    dims: tuple[int, ...]
    split: Split
    hierarchy: data.Hierarchy
    folder: Path | None = None
    classify: Callable[[], list[list[float | None]]] | None = None


def run_scorable(run: Run, features: LabelledFeatures) -> Scorable:
    """A trained head on the features that it was trained on.

    :raises PipelineError: if the run was trained on other features.
    """
    _check_belongs(run, features)
    load = cache(run.load)

    def split(name: str) -> tuple[Vectors, Ints]:
        vectors, labels = features.split(name)
        return load().embed(vectors), labels

    def classify() -> list[list[float | None]]:
        test, labels = features.split("test")
        return [
            [
                None if probabilities is None else float((probabilities.argmax(axis=1) == labels[:, level]).mean())
                for level, probabilities in enumerate(load().classify(test, dim=dim))
            ]
            for dim in run.record["dims"]
        ]

    facts = _facts(
        features.dataset, features.backbone, run.method, run=run.id, layer=features.layer,
        head=run.record["head"], seed=run.seed, hyperparameters=run.record["hyperparameters"],
    )  # fmt: skip
    return Scorable(facts, tuple(run.record["dims"]), split, features.dataset.hierarchy, run.folder, classify)


def baselines_of(artifacts: Artifacts, features: LabelledFeatures) -> list[Scorable]:
    """What no training reaches on these features: their plain truncation, and their principal components."""
    width = int(features.store.description["hidden_size"])
    folder = artifacts.runs / features.dataset.id / features.backbone / "untrained"
    return [
        Scorable(
            {**_facts(features.dataset, features.backbone, name, layer=features.layer), "untrained": True},
            baseline_dims(_rank(features.dataset, width) if name == "pca" else width),
            _untrained(name, features.split),
            features.dataset.hierarchy,
            folder / f"{name}-{features.fingerprint[:12]}",
        )
        for name in BASELINES
    ]


def external_scorables(
    path: Path, dataset: data.Dataset, dims: Sequence[int] | None, say: Callable[[str], None] = lambda line: None
) -> list[Scorable]:
    """Embeddings of a dataset that were made elsewhere, and their principal components beside them.

    :param path: see `read_embeddings`.
    :param dims: prefixes to score; by default 64, 128, 192, 256 as far as they reach, and the full length.
    :param say: told what to know about the file, one line each.
    :raises PipelineError: if the file does not go with the dataset, or a prefix is longer than the embeddings.
    """
    vectors = read_embeddings(path, dataset, say)
    width = vectors.shape[1]
    chosen = baseline_dims(width) if dims is None else tuple(sorted(dims))
    if chosen[0] < 1 or chosen[-1] > width:
        raise PipelineError(
            f"{path} has embeddings of {width} dimensions, not {chosen[0] if chosen[0] < 1 else chosen[-1]}",
            f"give --dims from 1 to {width}",
        )

    def split(name: str) -> tuple[Vectors, Ints]:
        rows = dataset.split_rows(name)
        return vectors[rows], dataset.labels[rows]

    facts = _facts(dataset, path.name, path.name)
    components = {**facts, "method": "pca", "untrained": True}
    return [
        Scorable(facts, chosen, split, dataset.hierarchy),
        Scorable(components, _within(chosen, _rank(dataset, width)), _untrained("pca", split), dataset.hierarchy),
    ]


def _rank(dataset: data.Dataset, width: int) -> int:
    """How many principal components the training texts can have."""
    return max(1, min(width, len(dataset.split_rows("train")) - 1))


def _within(dims: Sequence[int], most: int) -> tuple[int, ...]:
    """The prefixes as far as `most` reaches, and that itself where one goes beyond."""
    return tuple(dict.fromkeys(min(dim, most) for dim in dims))


def _untrained(name: str, features: Split) -> Split:
    make = cache(lambda: untrained(name, features("train")[0]))

    @cache
    def split(name: str) -> tuple[Vectors, Ints]:
        vectors, labels = features(name)
        return make()(np.asarray(vectors, np.float32)), labels

    return split


def _facts(
    dataset: data.Dataset,
    backbone: str,
    method: str,
    *,
    run: str | None = None,
    layer: int | None = None,
    head: str | None = None,
    seed: int | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "run": run,
        "dataset": dataset.id,
        "backbone": backbone,
        "layer": layer,
        "method": method,
        "head": head,
        "seed": seed,
        "hyperparameters": dict(hyperparameters or {}),
    }


def _check_belongs(run: Run, features: LabelledFeatures) -> None:
    if run.record["dataset"] != features.dataset.id:
        raise PipelineError(
            f"run {run.id} was trained on {run.record['dataset']}, not on {features.dataset.id}",
            f"name its dataset: --dataset {run.record['dataset']}",
        )
    if run.record["fingerprint"] != features.fingerprint:
        raise PipelineError(
            f"run {run.id} was trained on features {run.record['fingerprint'][:12]} of {run.record['backbone']}, "
            f"not on {features.fingerprint[:12]} of {features.backbone}",
            f"name the features it belongs to: --backbone {run.record['backbone']}-{run.record['fingerprint'][:12]}",
        )
