"""What retrieval is measured on: trained heads, and the two embeddings that no one trained, as functions of features.

`pipeline.evaluation.embeddings` gives the vectors of a dataset's own texts. Here the corpus may be larger than the
dataset, so what is needed is the map itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from pipeline.evaluation.embeddings import baselines_of, run_scorable, untrained
from pipeline.evaluation.scores import Identity
from pipeline.workspace.artifacts import Artifacts
from pipeline.workspace.features import LabelledFeatures
from pipeline.workspace.runs import Run

Embed = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Embedder:
    """A map from features [n, H] to vectors [n, D]; `dims` are its prefixes, the last one D. `identity` names it."""

    identity: Identity
    dims: tuple[int, ...]
    embed: Callable[[], Embed]

    @property
    def dim(self) -> int:
        """Length D of the full vector."""
        return self.dims[-1]


def embedders(
    artifacts: Artifacts, features: LabelledFeatures, runs: Sequence[Run], device: str = "cpu"
) -> list[Embedder]:
    """The runs' heads on a device, then raw truncation and principal components; loaded when they are asked for.

    Centred features are left out: as full vectors they are the principal components. So is a classifier.

    :raises PipelineError: if a run was trained on other features.
    """
    heads = [trained(run, features, device) for run in runs]
    beside = [
        _untrained(scorable.identity, scorable.dims, features)
        for scorable in baselines_of(artifacts, features)
        if scorable.predict is None and scorable.identity.method != "centred"
    ]
    return [*heads, *beside]


def trained(run: Run, features: LabelledFeatures, device: str = "cpu") -> Embedder:
    """A run's head, loaded to a device when it is asked for.

    :raises PipelineError: if the run was trained on other features.
    """
    scorable = run_scorable(run, features)
    return Embedder(scorable.identity, scorable.dims, cache(lambda: run.load().to(device).embed))


def _untrained(identity: Identity, dims: tuple[int, ...], features: LabelledFeatures) -> Embedder:
    def make() -> Embed:
        embed = untrained(identity.method, features.split("train")[0])
        return lambda rows: embed(rows)[:, : dims[-1]]

    return Embedder(identity, dims, cache(make))
