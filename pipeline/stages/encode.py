"""New texts through backbone and head: the embedding's prefix, and the predicted label of each level.

The texts take the path of the texts that the head was trained on (same checkpoint, same number formats), which the
fingerprint proves, and their features are kept in the same store: encoding a file twice computes it once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

import cache
from pipeline.errors import PipelineError
from pipeline.workspace.artifacts import Artifacts
from pipeline.workspace.runs import Run


@dataclass(frozen=True)
class Encoded:
    """A frame [text, embedding (array of float32), label and confidence column per level], and the embed's report."""

    frame: pl.DataFrame
    report: cache.EmbedReport


def encode(
    artifacts: Artifacts,
    run: Run,
    texts: list[str],
    dim: int,
    *,
    backbone: str | None = None,
    progress: Callable[[cache.EmbedProgress], None] | None = None,
) -> Encoded:
    """Embeds texts and predicts their labels with the classifiers of a run's head at `dim` dimensions.

    :param backbone: where the run's backbone is found now, if not where it was when the run was trained.
    :raises PipelineError: if `dim` is no prefix of the head, or the backbone found is not the run's.
    :raises cache.CacheError: if the backbone cannot be loaded.
    """
    head = run.load()
    if dim not in head.dims:
        raise PipelineError(f"--dim {dim} is no prefix of run {run.id}", f"use one of {', '.join(map(str, head.dims))}")
    features, report = features_of_texts(artifacts, run, texts, backbone, progress)
    columns: dict[str, Any] = {
        "text": texts,
        "embedding": pl.Series(head.embed(features, dim=dim), dtype=pl.Array(pl.Float32, dim)),
    }
    predicted = zip(run.record["levels"], run.record["classes"], head.classify(features, dim=dim), strict=True)
    for level, classes, probabilities in predicted:
        if probabilities is None:
            continue
        best = probabilities.argmax(axis=1)
        columns[level] = [classes[c] for c in best]
        columns[f"{level}_confidence"] = pl.Series(probabilities[np.arange(len(best)), best], dtype=pl.Float32)
    return Encoded(pl.DataFrame(columns), report)


def features_of_texts(
    artifacts: Artifacts,
    run: Run,
    texts: list[str],
    backbone: str | None = None,
    progress: Callable[[cache.EmbedProgress], None] | None = None,
) -> tuple[np.ndarray, cache.EmbedReport]:
    """Embeds texts as those that a run was trained on were: features float32 [n, H], kept in the same store.

    :raises PipelineError: if the backbone found is not the run's.
    :raises cache.CacheError: if the backbone cannot be loaded.
    """
    description = run.record["features"]
    report = cache.embed_missing(
        texts,
        cache.resolve(backbone or run.record["backbone_source"]),
        artifacts.features,
        layers=(int(description["layer"]),),
        dtype=str(description["compute_dtype"]),
        store_dtype=str(description["store_dtype"]),
        prompt=run.record["prompt"],
        progress=progress,
    )
    found = report.stores[0]
    if found.fingerprint != run.record["fingerprint"]:
        raise PipelineError(
            f"backbone {backbone or run.record['backbone_source']} has fingerprint {found.fingerprint[:12]}, "
            f"run {run.id} was trained on {run.record['fingerprint'][:12]}",
            "use the checkpoint that the run was trained on (--backbone PATH), or fit heads on the new one",
        )
    keys = cache.text_keys(texts, run.record["prompt"])
    return cache.FeatureStore.open(found.folder).gather(keys).astype(np.float32), report
