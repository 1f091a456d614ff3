"""What can be scored: a trained head, features that no one trained, embeddings that were made elsewhere.

All three are vectors of a dataset's texts, cut into prefixes, so all three are asked the same questions by the same
code (`score.py`). It makes its vectors when they are asked for and not before: a stored score needs none.

What no training reaches, without which a table of heads means little: `features` are the raw features, whose prefixes
are plain truncation, with the full width at the end. `centred` are these minus the mean of the training texts: features
of decoders share a large common direction, which makes all cosines alike until it is taken out. `pca` turns them first,
so that a prefix holds the directions in which the training texts vary most: the best linear truncation that looks at no
label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import data
import heads
from pipeline.errors import PipelineError
from pipeline.evaluation import metrics
from pipeline.evaluation.external_embeddings import read_embeddings
from pipeline.evaluation.predictions import Ints
from pipeline.evaluation.scores import Identity
from pipeline.workspace.artifacts import Artifacts
from pipeline.workspace.features import LabelledFeatures
from pipeline.workspace.records import tell
from pipeline.workspace.runs import UNTRAINED, Run

Singles = NDArray[np.float32]
Vectors = NDArray[np.floating[Any]]
DIMS = (64, 128, 192, 256)
FLAT = "logistic"
"""Method name of the flat classifier."""
Split = Callable[[str], tuple[Vectors, Ints]]
Embed = Callable[[Vectors], Singles]


@dataclass(frozen=True)
class Scorable:
    """Vectors [n, D] of a dataset's texts, to be scored at their prefixes.

    `identity` names it. `dims`: the prefixes. `split`: from "train" or "test" to vectors and labels [n, L].
    `hierarchy`: the tree of the labels. `folder`: where its scores are kept, None if nowhere. `classify`: accuracies
    [J, L] of its own classifiers on the test split, if it has any, decoded to paths of the tree as `encode` does.
    `predict`: labels [n, L] of the test split from a flat classifier, which searches no neighbours and so is scored in
    the training gallery alone. `embedder`: from a device to the map from features [n, H] to these vectors, where there
    is one: it embeds texts that the dataset does not have.
    """

    identity: Identity
    dims: tuple[int, ...]
    split: Split
    hierarchy: data.Hierarchy
    folder: Path | None = None
    classify: Callable[[], list[list[float | None]]] | None = None
    predict: Callable[[], Ints] | None = None
    embedder: Callable[[str], Embed] | None = None

    @property
    def dim(self) -> int:
        """Length of the longest prefix."""
        return self.dims[-1]

    def answers(self, protocol: str) -> bool:
        """Whether it can be scored under a protocol."""
        return self.predict is None or protocol == "gallery"


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
        supervised = load().labelling.supervised
        if not any(supervised):
            return [[None] * len(supervised) for _ in run.record["dims"]]
        shares = (metrics.accuracy(labels, load().decode(test, dim=dim)) for dim in run.record["dims"])
        return [[float(x) if known else None for x, known in zip(row, supervised, strict=True)] for row in shares]

    identity = Identity(
        run.id, features.dataset.id, features.backbone, features.layer, run.method, run.record["head"], run.seed,
        run.record["hyperparameters"],
    )  # fmt: skip
    return Scorable(
        identity, tuple(run.record["dims"]), split, features.dataset.hierarchy, run.folder, classify,
        embedder=lambda device: load().to(device).embed,
    )  # fmt: skip


_BLOCK = 1 << 16
"""Rows that are computed at once in float64, and up to which embeddings are kept."""

_IN_CACHE = 128
"""Rows whose norms are taken at once: in float64 they stay in the processor's cache."""

_MOST_LOGITS = 200_000_000
"""Training rows times finest classes up to which a logistic regression is fitted: some ten minutes on two cores."""


def baselines_of(artifacts: Artifacts, features: LabelledFeatures) -> list[Scorable]:
    """What a head has to beat: the features cut short, centred, their principal components, and a flat classifier."""
    width = int(features.store.description["hidden_size"])
    dataset = features.dataset.id
    folder = artifacts.runs / dataset / features.backbone / UNTRAINED
    untrained = [
        _untrained(
            name,
            Identity(None, dataset, features.backbone, features.layer, name, None, None, untrained=True),
            baseline_dims(_rank(features.dataset, width) if name == "pca" else width),
            features.split,
            features.dataset.hierarchy,
            folder / f"{name}-{features.fingerprint[:12]}",
        )
        for name in BASELINES
    ]
    classes, rows = features.dataset.hierarchy.sizes[-1], len(features.dataset.split_rows("train"))
    if rows * classes > _MOST_LOGITS:
        tell(f"no logistic regression beside them: {rows:,} rows of {classes:,} classes would take it hours", once=FLAT)
        return untrained
    return [*untrained, _flat(features, folder, width)] if classes > 1 else untrained


def _flat(features: LabelledFeatures, folder: Path, width: int) -> Scorable:
    """A logistic regression on whole features; labels above the finest are its answer's ancestors."""

    def predict() -> Ints:
        found = heads.fit_logistic(*features.split("train"), validation=features.validation)
        return np.asarray(found.predict(features.split("test")[0]), np.int64)

    identity = Identity(None, features.dataset.id, features.backbone, features.layer, FLAT, None, None)
    kept = folder / f"{FLAT}-{features.fingerprint[:12]}"
    return Scorable(identity, (width,), features.split, features.dataset.hierarchy, kept, predict=predict)


def external_scorables(
    path: Path,
    dataset: data.Dataset,
    dims: Sequence[int] | None,
    say: Callable[[str], None] = lambda line: None,
    *,
    bits: bool = False,
) -> list[Scorable]:
    """Embeddings of a dataset that were made elsewhere, and their principal components beside them.

    :param path: see `read_embeddings`, as for `bits`.
    :param dims: prefixes to score; by default 64, 128, 192, 256, then doublings, as far as they reach, and the full
        length.
    :param say: told what to know about the file, one line each.
    :raises PipelineError: if the file does not go with the dataset, or a prefix is longer than the embeddings.
    """
    vectors = read_embeddings(path, dataset, say, bits=bits)
    width = vectors.shape[1]
    chosen = _spread(width) if dims is None else tuple(sorted(dims))
    if chosen[0] < 1 or chosen[-1] > width:
        raise PipelineError(
            f"{path} has embeddings of {width} dimensions, not {chosen[0] if chosen[0] < 1 else chosen[-1]}",
            f"give --dims from 1 to {width}",
        )

    def split(name: str) -> tuple[Vectors, Ints]:
        rows = dataset.split_rows(name)
        return vectors[rows], dataset.labels[rows]

    given = Identity(None, dataset.id, path.name, None, path.name, None, None)
    components = replace(given, method="pca", untrained=True)
    within = tuple(dict.fromkeys(min(dim, _rank(dataset, width)) for dim in chosen))
    return [
        Scorable(given, chosen, split, dataset.hierarchy),
        _untrained("pca", components, within, split, dataset.hierarchy),
    ]


def _spread(width: int) -> tuple[int, ...]:
    """Prefixes of vectors of any length: the usual ones, 512, 1,024 and so on, and the whole."""
    doublings = takewhile(lambda dim: dim < width, (512 << i for i in range(20)))
    return tuple(sorted({*baseline_dims(width), *doublings}))


def _rank(dataset: data.Dataset, width: int) -> int:
    """How many principal components the training texts can have."""
    return max(1, min(width, len(dataset.split_rows("train")) - 1))


def _untrained(
    name: str, identity: Identity, dims: tuple[int, ...], features: Split, hierarchy: data.Hierarchy,
    folder: Path | None = None,
) -> Scorable:  # fmt: skip
    """A baseline, made of the training texts' features when it is asked for."""
    make = cache(lambda: _by_blocks(BASELINES[name](features("train")[0])))
    kept: dict[str, tuple[Vectors, Ints]] = {}

    def split(name: str) -> tuple[Vectors, Ints]:
        if name in kept:
            return kept[name]
        vectors, labels = features(name)
        made = make()(np.asarray(vectors, np.float32)), labels
        if len(vectors) <= _BLOCK:  # a million rows are made again when they are asked for again
            kept[name] = made
        return made

    return Scorable(
        identity, dims, split, hierarchy, folder, embedder=lambda device: lambda rows: make()(rows)[:, : dims[-1]]
    )


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
            f"name the features it belongs to: --backbone {run.store}",
        )


def baseline_dims(width: int) -> tuple[int, ...]:
    """Prefixes at which features of this width are scored: 64, 128, 192, 256 as far as they reach, and in full."""
    return (*(dim for dim in DIMS if dim < width), width)


def _centred(train: Vectors) -> Embed:
    centre = _centre(train)
    return _by_blocks(lambda features: (_normalised(features) - centre).astype(np.float32), _IN_CACHE)


def _pca(train: Vectors) -> Embed:
    """Principal components of the normalised features, as a head would receive them, largest variance first."""
    centre = _centre(train)
    scatter = np.zeros((len(centre), len(centre)))
    for block in _blocks(train):
        rows = _normalised(block) - centre
        scatter += rows.T @ rows
    axes = np.linalg.eigh(scatter)[1][:, ::-1]
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(len(centre))] < 0, -1.0, 1.0)
    return lambda features: ((_normalised(features) - centre) @ axes).astype(np.float32)


def _centre(train: Vectors) -> NDArray[np.float64]:
    """Mean of the unit rows."""
    total = np.zeros(train.shape[1])
    for block in _blocks(train):
        total += _normalised(block).sum(axis=0, dtype=np.float64)
    return total / len(train)


def _blocks(rows: Vectors) -> Iterator[Vectors]:
    """Parts of the rows whose float64 copies stay in the hundreds of megabytes."""
    return (rows[first : first + _BLOCK] for first in range(0, len(rows), _BLOCK))


def _by_blocks(function: Embed, step: int = _BLOCK) -> Embed:
    """The same function, a block of rows at a time."""

    def whole(rows: Vectors) -> Singles:
        made = np.empty(rows.shape, np.float32)
        for first in range(0, len(rows), step):
            made[first : first + step] = function(rows[first : first + step])
        return made

    return whole


def _unit(features: Vectors) -> Singles:
    rows = np.asarray(features, dtype=np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(norms > 0, norms, 1)).astype(np.float32)


def _normalised(features: Vectors) -> Singles:
    return _by_blocks(_unit, _IN_CACHE)(features)


BASELINES: Mapping[str, Callable[[Vectors], Embed]] = {
    "features": lambda train: _normalised,
    "centred": _centred,
    "pca": _pca,
}
"""Baselines by name: from the features [n, H] of the training split, as stored and without labels, to the function from
features [m, H] to float32 embeddings [m, H], to be scored at `baseline_dims(H)`."""
