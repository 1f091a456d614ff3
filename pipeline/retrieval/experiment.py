"""The whole measurement: every embedding, at every size of the corpus, searched in every way.

One embedding at a time is in memory, so a million documents take a million vectors and the prefix that is searched.
What costs time is the head (a million texts through it) and then the products; FLOPs and bytes are those of the shapes,
latency is taken once for each length of vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import torch

from cache.workers import choose_devices
from pipeline.evaluation.embeddings import Scorable
from pipeline.evaluation.scores import method_names
from pipeline.retrieval.documents import Corpus
from pipeline.retrieval.engines import Engine, time_engines
from pipeline.retrieval.knn import search
from pipeline.retrieval.metrics import TOP, Measured, Question, measure
from pipeline.retrieval.quantization import KINDS, Stored, stored
from pipeline.retrieval.timing import Timing, time_search
from pipeline.retrieval.two_stage_search import two_stage
from pipeline.workspace.features import LabelledFeatures

Way = tuple[int, int | None, str]
"""A way to search: dimensions of the filter or only stage, candidates (None with one stage), storage."""
SHARES = (0.001, 0.002, 0.005, 0.01, 0.02)
"""Candidates by default, as shares of the corpus: above 2 % a filter loses nothing that could separate methods."""
FEWEST = 5 * TOP
"""Candidates by default, at least: ten for a top ten are no second stage."""


@dataclass(frozen=True)
class Plan:
    """What to measure. `filters`: prefixes; `candidates`: by number, or None for `SHARES` of the corpus.

    `formats`: storage besides float32. `timed`: whether latencies are taken. `engines`: of FAISS, to be timed beside.
    """

    filters: tuple[int, ...] = (64, 128)
    candidates: tuple[int, ...] | None = None
    formats: tuple[str, ...] = tuple(kind for kind in KINDS if kind != "float32")
    timed: bool = True
    engines: tuple[str, ...] = ()
    device: str = "cpu"

    def counts(self, documents: int) -> tuple[int, ...]:
        """Numbers of candidates in a corpus, ascending; of the shares none below `FEWEST`, which re-rank little."""
        wanted = self.candidates or tuple(max(FEWEST, round(share * documents)) for share in SHARES)
        return tuple(sorted({min(max(TOP, count), documents) for count in wanted}))


@dataclass(frozen=True, eq=False)
class Trial:
    """One embedding searched in one corpus."""

    name: str
    embedded: Scorable
    documents: int
    measured: Measured


@dataclass(frozen=True, eq=False)
class Experiment:
    """All trials, and what was timed.

    `corpora`: documents, and how many of them are copies. `timings` by documents, length D and way; `disk`: bytes of a
    file of the documents, by their number, dimensions and storage.
    """

    levels: tuple[str, ...]
    queries: int
    corpora: tuple[tuple[int, int], ...]
    trials: tuple[Trial, ...]
    timings: Mapping[tuple[int, int, Way], Timing] = field(default_factory=dict)
    disk: Mapping[tuple[int, int, str], int] = field(default_factory=dict)
    engines: tuple[Engine, ...] = ()


def flops_per_query(dim: int, documents: int, candidates: int | None, full: int) -> int:
    """Multiplications and additions of a query: 2 d N to filter, 2 D per candidate to re-rank."""
    return 2 * dim * documents + (0 if candidates is None else 2 * full * candidates)


def experiment(
    scorables: Sequence[Scorable],
    features: LabelledFeatures,
    sizes: Sequence[int],
    queries: int,
    plan: Plan,
    progress: Callable[[float, float, str], None] = lambda done, total, note: None,
) -> Experiment:
    """Measure embeddings in corpora of these sizes, made of the training split; queries are of the test split.

    :param scorables: such as have an `embedder`.
    :param queries: texts asked, drawn with a fixed seed where the test split has more.
    :raises PipelineError: if texts were not embedded.
    """
    test, labels = features.split("test")
    chosen = np.sort(np.random.default_rng(0).permutation(len(test))[:queries])
    bench = _Bench(plan, _Meter(progress, sum(sizes) * len(scorables)))
    trials, corpora = [], []
    for size in sizes:
        corpus = Corpus(*features.split("train"), size)
        corpora.append((size, corpus.simulated))
        for name, scorable in zip(names_of(scorables), scorables, strict=True):
            measured = bench.search(name, scorable, corpus, (test[chosen], labels[chosen]))
            trials.append(Trial(name, scorable, size, measured))
    return Experiment(
        features.dataset.levels, len(chosen), tuple(corpora), tuple(trials), bench.timings, bench.disk,
        tuple(bench.engines),
    )  # fmt: skip


def names_of(scorables: Sequence[Scorable]) -> list[str]:
    """As tables call them, but the asterisk of what no one trained only where a run has the name too: a `pca` head."""
    called = method_names([one.identity for one in scorables])
    return [name if name.removesuffix("*") in called else name.removesuffix("*") for name in called]


class _Bench:
    """Searches one corpus after another, and times each shape the first time that it is met."""

    def __init__(self, plan: Plan, meter: _Meter) -> None:
        self._plan, self._meter = plan, meter
        self.timings: dict[tuple[int, int, Way], Timing] = {}
        self.disk: dict[tuple[int, int, str], int] = {}
        self.engines: list[Engine] = []

    def search(self, name: str, scorable: Scorable, corpus: Corpus, asked: tuple[Any, Any]) -> Measured:
        """Search for `asked`, features and labels of the queries, in every way of the plan."""
        plan, meter = self._plan, self._meter
        meter.begin(f"{name}, {corpus.size:,} documents")
        assert scorable.embedder is not None
        embed = scorable.embedder(plan.device)
        full = corpus.embedded(embed, scorable.dim, plan.device, meter.embedded)
        question = Question.of(embed(asked[0]), asked[1], corpus.document_labels, full.device)
        filters = tuple(dim for dim in plan.filters if dim < scorable.dim)
        counts = plan.counts(corpus.size)
        singles = scorable.dims if plan.timed else ()
        measured = measure(question, full, filters, singles, counts, plan.formats, meter.note)
        if plan.timed and not any((corpus.size, full.dim) == key[:2] for key in self.timings):  # of two stages
            meter.note("latency")
            self._time(full, question, [(o.dim, o.candidates, o.storage) for o in measured.outcomes])
            if not any(engine.documents == corpus.size for engine in self.engines):
                timed = partial(self._two_stages, full)
                self.engines += time_engines(plan.engines, filters, counts, full, question, timed, meter.note)
        meter.end(corpus.size)
        return measured

    def _time(self, full: Stored, question: Question, ways: Sequence[Way]) -> None:
        by_storage = itemgetter(0, 2)  # what a way keeps to filter by: dimensions and storage
        for (dim, storage), group in groupby(sorted(ways, key=by_storage), key=by_storage):
            documents = full if (dim, storage) == (full.dim, "float32") else stored(full.codes, dim, storage)
            self.disk[len(full), dim, storage] = documents.bytes_written
            for way in group:
                if (key := timing_key(len(full), full.dim, way)) not in self.timings:
                    self.timings[key] = _time_way(way, documents, full, question)

    def _two_stages(self, full: Stored, dim: int, candidates: int) -> Timing:
        return self.timings[timing_key(len(full), full.dim, (dim, candidates, "float32"))]


def timing_key(documents: int, full: int, way: Way) -> tuple[int, int, Way]:
    """What a latency depends on: the length of the full vector, 0 with one stage, which never looks at it."""
    return documents, 0 if way[1] is None else full, way


def _time_way(way: Way, documents: Stored, full: Stored, question: Question) -> Timing:
    _, candidates, _ = way
    if candidates is None:
        return time_search(lambda queries: search(queries, documents, TOP).rows, question.queries)
    top = min(TOP, candidates)
    return time_search(lambda queries: two_stage(queries, documents, full, candidates, top).rows, question.queries)


class _Meter:
    """Tells how far the whole is: documents, half of an embedding's for the head and half for the searches."""

    def __init__(self, progress: Callable[[float, float, str], None], total: float) -> None:
        self._progress, self._total = progress, total
        self._done, self._within, self._title = 0.0, 0.0, ""

    def begin(self, title: str) -> None:
        self._title = title
        self.note("")

    def embedded(self, documents: int) -> None:
        self._within = documents / 2
        self.note("")

    def note(self, what: str) -> None:
        self._progress(self._done + self._within, self._total, f"{self._title} {what}".rstrip())

    def end(self, documents: int) -> None:
        self._done, self._within = self._done + documents, 0.0
        self.note("")


def device_of(name: str) -> str:
    """The device that `auto` means: a GPU if there is one."""
    return choose_devices(name)[0] if name == "auto" else name


def searched_bytes(way: Way, full: int) -> int:
    """Bytes per document that a way to search keeps: the prefix in its format, and the full vectors to re-rank by."""
    dim, candidates, storage = way
    one = stored(torch.ones(1, dim), dim, storage).bytes_per_document
    return one + (0 if candidates is None else 4 * full)
