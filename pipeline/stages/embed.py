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
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cache
import data
from cache import EmbedRequest
from cache.backbone import READING, Backbone, BackboneOptions, with_options
from cache.batching import Reading, reading_of
from cache.store import read_description
from pipeline.errors import PipelineError
from pipeline.terminal.command import Session
from pipeline.terminal.console import ProgressBar, duration
from pipeline.workspace.artifacts import BackboneSource, Current, DatasetSource, lasting_source
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


def embed_stage(
    session: Session, source: DatasetSource, options: Mapping[str, Any], layers: Sequence[int] = (-1,)
) -> Embedded:
    """Compute and store the missing features of a dataset, and make it and the backbone the current ones, shown.

    :raises data.DataError: if the dataset cannot be used.
    :raises cache.CacheError: if the backbone cannot be loaded or a feature not be stored.
    """
    artifacts, request = session.artifacts, _request(session, options, layers)
    with session.console.progress("embedding") as bar:
        dataset = artifacts.load_dataset(source)
        if request.engine == "ray":
            from cache.cluster import embed_on_cluster

            report = embed_on_cluster(dataset.texts, request, progress_on(bar))
        else:
            report = cache.embed_missing(dataset.texts, request, progress_on(bar))
        used = _source_of(request, report)
        stores = {str(layer.layer): layer.folder.name for layer in report.stores}
        artifacts.remember(Current(source, dataset.id, used, stores), also_called=request.resolved.name)
        reading = how_read(dataset.texts, request.resolved) if report.computed else None
    embedded = Embedded(dataset.id, dataset.warnings, used, report, dataset, reading=reading)
    return shown_coarsened(session, source, embedded, options)


def corpus_stage(
    session: Session, corpus: Any, options: Mapping[str, Any], layers: Sequence[int] = (-1,)
) -> EmbeddedTexts:
    """Compute and store the missing features of texts without labels on a Ray cluster, shown.

    :raises cache.CacheError: see `cache.cluster.embed_on_cluster`.
    """
    from cache.cluster import embed_on_cluster

    request = _request(session, options, layers)
    with session.console.progress("embedding") as bar:
        report = embed_on_cluster(corpus, request, progress_on(bar))
    embedded = EmbeddedTexts(f"{corpus.name}-{corpus.address}", (_NO_LABELS,), _source_of(request, report), report)
    _show(session, embedded)
    return embedded


def _request(session: Session, options: Mapping[str, Any], layers: Sequence[int]) -> EmbedRequest:
    """What the options of a command ask for (`pipeline.terminal.options.embedding_options`).

    Without a backbone it is the default that is at hand, said if it is not the first.
    """
    name = options["backbone"]
    if name is None:
        name, why = cache.backbone.at_hand()
        if why:
            session.console.say(f"{why}: {name} is used instead (--backbone names another)")
    asked = BackboneOptions(**{one: options.get(one) for one in READING})
    return EmbedRequest(
        lasting_source(with_options(name, asked)),
        session.artifacts.features,
        tuple(layers),
        options["dtype"],
        options.get("store_dtype"),
        options["devices"],
        engine=options.get("engine", "local"),
        address=options.get("ray_address"),
    )


def progress_on(bar: ProgressBar) -> Callable[[cache.EmbedProgress], None]:
    """Draws how far an embed is: texts per second, once there is a rate to speak of."""

    def draw(progress: cache.EmbedProgress) -> None:
        rate = f"{progress.texts_per_second:,.0f} texts/s" if progress.texts_per_second else progress.stage
        bar.update(progress.done, progress.total, rate)

    return draw


def shown_coarsened(
    session: Session, source: DatasetSource, embedded: Embedded, options: Mapping[str, Any]
) -> Embedded:
    """With the coarse level that --make-coarse asks for, if it does, and shown."""
    if options.get("make_coarse") is not None:
        from pipeline.stages.coarse_level import with_coarse_level

        whole = with_coarse_level(session.artifacts, source, embedded.features(), options["make_coarse"])
        embedded = replace(embedded, dataset=whole, dataset_id=whole.id, warnings=whole.warnings)
    _show(session, embedded)
    return embedded


def _show(session: Session, embedded: EmbeddedTexts) -> None:
    """Warnings and choices; texts and tokens, and where the seconds went."""
    say, show, report = session.console.say, session.console.show, embedded.report
    for line in (*embedded.warnings, *report.notes, *reading_lines(embedded.reading, embedded.backbone.name)):
        say(line)
    show(
        f"{embedded.dataset_id} through {embedded.backbone.name}: {report.texts:,} texts, "
        f"{report.computed:,} computed, {report.reused:,} reused, {duration(report.seconds)}"
    )
    if report.computed and report.nodes:  # vectors of a file or a server have no tokens here
        stages = ", ".join(f"{name} {duration(seconds)}" for name, seconds in report.stages.items() if seconds >= 0.05)
        padding = report.padding / (report.nodes + report.padding)
        shared = (
            f", {report.nodes:,} of them computed: texts that begin alike share" if report.nodes < report.tokens else ""
        )
        show(
            f"  {report.tokens:,} tokens{shared}, padding {padding:.1%}, "
            f"{report.computed / report.seconds:,.0f} texts/s on {report.device} in {report.dtype}"
        )
        show(f"  time: {stages}")
    for layer in report.stores:
        show(f"  features of layer {layer.layer}: {layer.folder}")


def how_read(texts: Sequence[str], backbone: Backbone) -> Reading | None:
    """How the backbone read the texts; None where its tokenizer is not here."""
    if backbone.endpoint is not None:
        return None
    try:
        return reading_of(texts, backbone)
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
