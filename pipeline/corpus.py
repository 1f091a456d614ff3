"""Texts without labels, in Parquet files, too many for one machine: embedded where they are read, and nothing else.

What has labels is a dataset, whichever engine computes its features: heads are fitted on labels in memory, so its rows
are loaded here. What has none, a search index's documents or the texts of a decade, never comes here as a whole. Its
features lie in the same store under the same keys, so that whatever asks for one of its texts later finds it there, and
what `embed` used last stays what it was: a corpus is nothing to fit a head on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cache
from pipeline.artifacts import Artifacts, BackboneSource, DatasetSource, lasting_source
from pipeline.embed import EmbeddedTexts
from pipeline.errors import PipelineError

_LEVEL = re.compile(r"level\d+")
_NO_LABELS = "no column of labels: embedded as texts alone; what `embed` used last is unchanged"


def corpus_of(source: DatasetSource) -> Any | None:
    """The `cache.cluster.corpus.Corpus` that a source names, or None if it is a dataset.

    A corpus is a Parquet file, a folder or a pattern of them, or a URL of either, without a column of labels.

    :raises PipelineError: if a folder holds labels, or an option does not apply to a corpus.
    :raises cache.CacheError: if the files cannot be read.
    """
    place = source.source
    folder = ("://" not in place and Path(place).is_dir()) or place.endswith("/")
    if source.levels is not None or not (folder or place.endswith(".parquet")):
        return None
    from cache.cluster.corpus import open_corpus

    corpus = open_corpus(place, source.text)
    labels = [column for column in corpus.columns if _LEVEL.fullmatch(column)]
    if labels and folder:
        raise PipelineError(
            f"{place} is a folder whose files hold labels ({', '.join(labels)})",
            f"name the files of a labelled dataset by a pattern: '{place.rstrip('/')}/*.parquet'",
        )
    if labels:
        return None
    turned = {name: value for name, value in asdict(source).items() if name not in ("source", "levels", "text")}
    if wrong := [name for name, value in turned.items() if value]:
        option = "--" + wrong[0].removesuffix("_rows").replace("_", "-")
        raise PipelineError(f"{option} is about labels, and {place} has none", f"leave {option} out")
    return corpus


def embed_corpus(
    artifacts: Artifacts,
    corpus: Any,
    backbone: str,
    *,
    layers: Sequence[int] = (-1,),
    dtype: str = "auto",
    devices: str = "auto",
    ray_address: str | None = None,
    progress: Callable[[cache.EmbedProgress], None] | None = None,
) -> EmbeddedTexts:
    """Computes and stores the missing features of a corpus on a Ray cluster.

    :raises cache.CacheError: see `cache.cluster.engine.embed_on_cluster`.
    """
    from cache.cluster.engine import embed_on_cluster

    resolved = cache.resolve(lasting_source(backbone))
    report = embed_on_cluster(
        corpus,
        resolved,
        artifacts.features,
        layers=layers,
        dtype=dtype,
        devices=devices,
        address=ray_address,
        progress=progress,
    )
    used = BackboneSource(resolved.name, lasting_source(backbone), resolved.prompt)
    return EmbeddedTexts(f"{corpus.name}-{corpus.address}", (_NO_LABELS,), used, report)
