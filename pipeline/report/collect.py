"""Everything the page says, gathered before a word of it is written: scores, answers, histories, verdicts, maps.

What is kept beside the runs is read, what is missing is measured by the same stages that `score`, `compare` and
`reproduce` use, so that the page cannot disagree with them. Making a page is then a function of this alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import polars as pl

import data
from pipeline.claims.cost import cost_measurements
from pipeline.claims.search import search_measurements
from pipeline.claims.verdicts import Judged, judge
from pipeline.errors import PipelineError
from pipeline.evaluation.comparison import Comparison, Entry, compare
from pipeline.evaluation.embeddings import Scorable, baselines_of, run_scorable
from pipeline.evaluation.recommend import layer_sentences
from pipeline.evaluation.score import PROTOCOLS
from pipeline.report.explorer import Explorer, explore
from pipeline.report.frames import history_frame
from pipeline.stages.with_progress import entries_stage, grid_stage, score_stage
from pipeline.terminal.command import Session
from pipeline.workspace.artifacts import Artifacts, DatasetSource
from pipeline.workspace.features import LabelledFeatures, runs_of_layers
from pipeline.workspace.records import read_record, tell
from pipeline.workspace.run_names import names
from pipeline.workspace.runs import Run

Score = Mapping[str, Any]


class _RetrievalResult(TypedDict):
    """What the page needs of a row of `retrieve`."""

    method: str
    filter_dim: int
    candidates: int
    recall_at_10: float
    flops_per_query: float
    bytes_per_document: float


class _RetrievalRecord(TypedDict):
    """What the page needs of what `retrieve` keeps."""

    results: list[_RetrievalResult]


@dataclass(frozen=True)
class ReportData:
    """What is known of one dataset and backbone.

    `methods`: names of the runs' groups over seeds, in order. `scores`, `baselines`, `entries`, `comparisons`: by
    protocol. `cells`: of the gallery grid, empty if it was not measured. `retrieval`: what `pipeline retrieve` left,
    None if it was not run. `claims`: empty unless v5 and mrl are there. `layers`: sentences on which layer is ahead on
    validation, where heads were trained on several.
    """

    features: LabelledFeatures
    source: DatasetSource
    runs: Sequence[Run]
    methods: tuple[str, ...]
    scores: Mapping[str, Sequence[Score]]
    baselines: Mapping[str, Sequence[Score]]
    entries: Mapping[str, Sequence[Entry]]
    comparisons: Mapping[str, Sequence[Comparison]]
    cells: Sequence[Score]
    claims: Sequence[Judged]
    histories: pl.DataFrame
    layers: Sequence[str]
    retrieval: Mapping[str, Any] | None
    explorer: Explorer | None

    @property
    def dataset(self) -> data.Dataset:
        """The dataset."""
        return self.features.dataset

    @property
    def levels(self) -> tuple[str, ...]:
        """Level names, coarsest first."""
        return self.dataset.levels

    @property
    def seeds(self) -> tuple[int, ...]:
        """Every seed that was trained."""
        return tuple(sorted({run.seed for run in self.runs}))

    @property
    def options(self) -> str:
        """The options by which commands find this dataset and backbone."""
        return f"--dataset {self.dataset.id} --backbone {self.features.backbone}"

    @property
    def dims(self) -> tuple[int, ...]:
        """Prefixes of the first run."""
        return tuple(self.runs[0].record["dims"])


def gather(session: Session, features: LabelledFeatures, runs: Sequence[Run], *, galleries: bool = True) -> ReportData:
    """Collect what there is and measure what is missing, shown as it goes.

    :param galleries: whether galleries that were not measured yet are, which takes ten seconds or more per run.
    """
    scorables = [run_scorable(run, features) for run in runs]
    beside = baselines_of(session.artifacts, features)
    scores = {name: score_stage(session, scorables, (name,)) for name in PROTOCOLS}
    baselines = {name: score_stage(session, beside, (name,)) for name in PROTOCOLS}
    entries = {name: entries_stage(session, scorables, name) for name in PROTOCOLS}
    called = names([scorable.facts for scorable in scorables])
    methods = tuple(dict.fromkeys(called))
    firsts = {name: scorable for name, scorable in reversed(list(zip(called, scorables, strict=True)))}
    return ReportData(
        features=features,
        source=session.artifacts.dataset_source(features.dataset.id),
        runs=runs,
        methods=methods,
        scores=scores,
        baselines=baselines,
        entries=entries,
        comparisons={name: _compared(found) for name, found in entries.items()},
        cells=_galleries(session, scorables, galleries),
        claims=_judged(entries, runs),
        layers=layer_sentences(
            runs_of_layers(session.artifacts, features, tuple(dict.fromkeys(r.method for r in runs)))
        ),
        histories=history_frame(zip(called, runs, strict=True), features.dataset.levels),
        retrieval=read_retrieval(session.artifacts, features),
        explorer=_explored(session, features, {**{name: firsts[name] for name in methods}, **_starred(beside)}),
    )


def page_name(features: LabelledFeatures) -> str:
    """What files about one dataset and backbone are called in `reports/`."""
    return f"{features.dataset.id}-{features.backbone}"


def read_retrieval(artifacts: Artifacts, features: LabelledFeatures) -> dict[str, Any] | None:
    """What `pipeline retrieve` left, None if it was not run.

    A damaged one is named and left out: a page lacks a section, not the command its page.
    """
    path = artifacts.root / "reports" / f"retrieval-{page_name(features)}.json"
    try:
        found = read_record(path, _RetrievalRecord)
    except PipelineError as error:
        tell(f"{error}; left out: `pipeline retrieve` writes it again")
        return None
    return None if found is None or not found["results"] else dict(found)


def _compared(entries: Sequence[Entry]) -> list[Comparison]:
    """Every pair of methods that share a seed."""
    try:
        return compare(entries)
    except PipelineError:  # one method alone, or no seed in common: there is nothing to compare, which the page says
        return []


def _judged(entries: Mapping[str, Sequence[Entry]], runs: Sequence[Run]) -> Sequence[Judged]:
    """The published claims, if v5 and mrl share a seed; on search those that are counted: the others take minutes."""
    seeds = [{entry.seed for entry in entries[PROTOCOLS[0]] if entry.method == name} for name in ("v5", "mrl")]
    if not seeds[0] & seeds[1]:
        return ()
    return judge(entries, {**cost_measurements(str(runs[0].record["head"])), **search_measurements(None)})


def _galleries(session: Session, scorables: Sequence[Scorable], measure: bool) -> list[dict[str, Any]]:
    kept = all(
        scorable.folder is not None and any(scorable.folder.glob("galleries-all-k5-*")) for scorable in scorables
    )
    return grid_stage(session, scorables, None) if measure or kept else []


def _starred(beside: Sequence[Scorable]) -> dict[str, Scorable]:
    return {f"{scorable.facts['method']}*": scorable for scorable in beside}


def _explored(session: Session, features: LabelledFeatures, scorables: Mapping[str, Scorable]) -> Explorer | None:
    with session.console.progress("drawing maps") as bar:
        return explore(features.dataset, scorables, progress=lambda done, total, note: bar.update(done, total, note))
