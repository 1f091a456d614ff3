"""Stage one: every text of a dataset through the frozen backbone, once, into the store.

Texts without labels, in Parquet files, too many for one machine: embedded where they are read, and nothing else.

What has labels is a dataset, whichever engine computes its features: heads are fitted on labels in memory, so its rows
are loaded here. What has none, a search index's documents or the texts of a decade, never comes here as a whole. Its
features lie in the same store under the same keys, so that whatever asks for one of its texts later finds it there, and
what `embed` used last stays what it was: a corpus is nothing to fit a head on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cache
import data
from cache import EmbedRequest
from cache.backbone import READING, BackboneOptions, with_options
from cache.batching import Reading, reading_of
from cache.store import read_description
from pipeline.errors import PipelineError
from pipeline.workspace.artifacts import Artifacts, BackboneSource, Current, DatasetSource, lasting_source
from pipeline.workspace.features import LabelledFeatures

_LEVEL = re.compile(r"level\d+")
_OF_A_CORPUS = ("source", "levels", "text", "description")
_NO_LABELS = "no column of labels: embedded as texts alone; what `embed` used last is unchanged"


def corpus_of(source: DatasetSource) -> Any | None:
    """The `cache.cluster.Corpus` that a source names, or None if it is a dataset.

    A corpus is a Parquet file, a folder or a pattern of them, or a URL of either, without a column of labels.

    :raises PipelineError: if a folder holds labels, or an option does not apply to a corpus.
    :raises cache.CacheError: if the files cannot be read.
    """
    place = source.source
    folder = ("://" not in place and Path(place).is_dir()) or place.endswith("/")
    if source.levels is not None or not (folder or place.endswith(".parquet")):
        return None
    from cache.cluster import open_corpus

    corpus = open_corpus(place, source.text)
    labels = [column for column in corpus.columns if _LEVEL.fullmatch(column)]
    if labels and folder:
        raise PipelineError(
            f"{place} is a folder whose files hold labels ({', '.join(labels)})",
            f"name the files of a labelled dataset by a pattern: '{place.rstrip('/')}/*.parquet'",
        )
    if labels:
        return None
    if source.description.files:
        raise PipelineError(
            f"{place} has no labels and is named beside {source.description.files[0]}",
            "texts without labels come in one file, a folder of them or a pattern: name one",
        )
    turned = {**asdict(source), **asdict(source.description)}
    if wrong := [name for name, value in turned.items() if name not in _OF_A_CORPUS and value not in (None, (), False)]:
        option = "--" + wrong[0].removesuffix("_rows").replace("_", "-")
        raise PipelineError(f"{option} is about labels, and {place} has none", f"leave {option} out")
    return corpus


def embed_request(artifacts: Artifacts, options: Mapping[str, Any], layers: Sequence[int] = (-1,)) -> EmbedRequest:
    """What the options of a command ask for (`pipeline.terminal.options.embedding_options`)."""
    asked = BackboneOptions(**{name: options.get(name) for name in READING})
    return EmbedRequest(
        lasting_source(with_options(options["backbone"], asked)),
        artifacts.features,
        tuple(layers),
        options["dtype"],
        options.get("store_dtype"),
        options["devices"],
        engine=options.get("engine", "local"),
        address=options.get("ray_address"),
    )


def embed_corpus(
    corpus: Any, request: EmbedRequest, progress: Callable[[cache.EmbedProgress], None] | None = None
) -> EmbeddedTexts:
    """Computes and stores the missing features of a corpus on a Ray cluster.

    :raises cache.CacheError: see `cache.cluster.embed_on_cluster`.
    """
    from cache.cluster import embed_on_cluster

    report = embed_on_cluster(corpus, request, progress)
    return EmbeddedTexts(f"{corpus.name}-{corpus.address}", (_NO_LABELS,), _source_of(request, report), report)


def _source_of(request: EmbedRequest, report: cache.EmbedReport) -> BackboneSource:
    """The backbone under the name of the store that holds its features: one model may be typed in several ways."""
    name = str(read_description(report.stores[0].folder)["backbone"])
    return BackboneSource(name, str(request.backbone), request.resolved.prompt)


@dataclass(frozen=True)
class EmbeddedTexts:
    """What an embed did, for the texts that `dataset_id` names, and what was noticed about them."""

    dataset_id: str
    warnings: tuple[str, ...]
    backbone: BackboneSource
    report: cache.EmbedReport
    reading: Reading | None = field(default=None, kw_only=True)

    def summary(self) -> dict[str, Any]:
        """What `embed --json` prints."""
        report = self.report
        stores = [
            {"layer": layer.layer, "fingerprint": layer.fingerprint, "store": str(layer.folder)}
            for layer in report.stores
        ]
        return {
            "dataset": self.dataset_id,
            "backbone": self.backbone.name,
            "fingerprint": stores[0]["fingerprint"],
            "texts": report.texts,
            "computed": report.computed,
            "reused": report.reused,
            "tokens": report.tokens,
            "nodes": report.nodes,
            "padding": report.padding,
            "seconds": report.seconds,
            "texts_per_second": report.computed / report.seconds if report.seconds else 0.0,
            "store": stores[0]["store"],
            "stores": stores,
            "stages": report.stages,
            "dtype": report.dtype,
            "device": report.device,
            "texts_cut": None if self.reading is None else self.reading.cut,
            "unknown_tokens": None if self.reading is None else self.reading.unknown,
        }


@dataclass(frozen=True)
class Embedded(EmbeddedTexts):
    """What `embed` did for a dataset."""

    dataset: data.Dataset

    def features(self) -> LabelledFeatures:
        """The features of the first layer asked for, beside the dataset's labels."""
        return LabelledFeatures(self.dataset, cache.FeatureStore.open(self.report.stores[0].folder), self.backbone)


def embed(
    artifacts: Artifacts,
    source: DatasetSource,
    request: EmbedRequest,
    progress: Callable[[cache.EmbedProgress], None] | None = None,
) -> Embedded:
    """Computes and stores the missing features of a dataset, and makes it and the backbone the current ones.

    :raises data.DataError: if the dataset cannot be used.
    :raises cache.CacheError: if the backbone cannot be loaded or a feature not be stored.
    """
    dataset = artifacts.load_dataset(source)
    if request.engine == "ray":
        from cache.cluster import embed_on_cluster

        report = embed_on_cluster(dataset.texts, request, progress)
    else:
        report = cache.embed_missing(dataset.texts, request, progress)
    used = _source_of(request, report)
    stores = {str(layer.layer): layer.folder.name for layer in report.stores}
    artifacts.remember(Current(source, dataset.id, used, stores), also_called=request.resolved.name)
    reading = how_read(dataset.texts, request) if report.computed else None
    return Embedded(dataset.id, dataset.warnings, used, report, dataset, reading=reading)


def how_read(texts: Sequence[str], request: EmbedRequest) -> Reading | None:
    """How the backbone read the texts; None where its tokenizer is not here."""
    if request.resolved.endpoint is not None:
        return None
    try:
        return reading_of(texts, request.resolved)
    except cache.CacheError:
        return None


UNKNOWN = 0.05
"""Share of unknown tokens from which on it is said."""


def reading_lines(reading: Reading | None, name: str) -> list[str]:
    """What a person should know of how the backbone `name` read texts: many unknown tokens, texts cut."""
    lines = []
    if reading is not None and reading.unknown > UNKNOWN:
        lines.append(
            f"{reading.unknown:.0%} of the tokens are unknown to {name} (in {reading.sampled:,} texts): it may not "
            "know this language or script, so try another --backbone"
        )
    if reading is not None and reading.cut:
        lines.append(
            f"{reading.cut:,} of {reading.texts:,} texts are longer than the {reading.room:,} tokens that "
            f"{name} reads: their ends are cut off"
        )
    return lines
