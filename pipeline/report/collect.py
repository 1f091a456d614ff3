"""Everything the page says, gathered before a word of it is written: scores, predictions, histories, verdicts, maps.

What is kept beside the runs is read, what is missing is measured by the same stages that `score`, `compare` and
`reproduce` use, so that the page cannot disagree with them. Making a page is then a function of this alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

import data
from pipeline.claims.verdicts import NOT_MEASURED, Judged, judge
from pipeline.errors import PipelineError
from pipeline.evaluation.comparison import Entry, compare
from pipeline.evaluation.embeddings import Scorable, baselines_of, run_scorable
from pipeline.evaluation.ranking import Comparison
from pipeline.evaluation.recommend import answer
from pipeline.evaluation.score import PROTOCOLS
from pipeline.evaluation.scores import Score, from_json, method_names
from pipeline.report.explorer import Explorer, explore
from pipeline.report.frames import accuracy_frame, history_frame
from pipeline.report.html import isolated
from pipeline.report.looks import Style, styles
from pipeline.stages.layers import layer_sentences
from pipeline.stages.with_progress import entries_stage, grid_stage, score_stage
from pipeline.terminal.command import Session
from pipeline.workspace.artifacts import Artifacts, DatasetSource
from pipeline.workspace.features import LabelledFeatures, runs_of
from pipeline.workspace.records import read_record, tell
from pipeline.workspace.runs import Run, runs_on

if TYPE_CHECKING:
    from pipeline.retrieval.records import RetrievalResults


@dataclass(frozen=True)
class ReportData:
    """What is known of one dataset and backbone.

    `methods`: names of the runs' groups over seeds, in order; `untrained`: names of what is beside them. By protocol:
    `scores` of the runs, `entries` and `comparisons` of runs and untrained. `cells`: of the gallery grid, empty if not
    measured. `retrieval`: what `pipeline retrieve` left, None if it was not run. `claims`: empty unless v5 and mrl
    are there. `layers`: sentences on which layer is ahead on validation, where heads were trained on several.
    """

    features: LabelledFeatures
    source: DatasetSource
    runs: Sequence[Run]
    methods: tuple[str, ...]
    untrained: tuple[str, ...]
    scores: Mapping[str, Sequence[Score]]
    entries: Mapping[str, Sequence[Entry]]
    comparisons: Mapping[str, Sequence[Comparison]]
    cells: Sequence[Score]
    claims: Sequence[Judged]
    histories: pl.DataFrame
    layers: Sequence[str]
    retrieval: RetrievalResults | None
    explorer: Explorer | None

    @property
    def dataset(self) -> data.Dataset:
        """The dataset."""
        return self.features.dataset

    @property
    def levels(self) -> tuple[str, ...]:
        """Level names as they stand within a sentence, coarsest first."""
        return isolated(self.dataset.levels)

    @property
    def sizes(self) -> str:
        """How many classes each level has, such as "chapter (21) > block (200)"."""
        counts = zip(self.levels, self.dataset.hierarchy.sizes, strict=True)
        return " > ".join(f"{level} ({size:,})" for level, size in counts)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Every seed that was trained; closed forms have none."""
        return tuple(sorted({run.seed for run in self.runs if not run.closed_form}))

    @cached_property
    def accuracies(self) -> pl.DataFrame:
        """`accuracy_frame` of every method under both protocols."""
        return accuracy_frame(self.entries, self.levels)

    @cached_property
    def looks(self) -> dict[str, Style]:
        """Colour and shape of every method and baseline on the page."""
        return styles([*self.methods, *self.untrained])

    @property
    def trained_looks(self) -> dict[str, Style]:
        """Those of the trained methods."""
        return {name: self.looks[name] for name in self.methods}

    @property
    def options(self) -> str:
        """The options by which commands find this dataset, backbone and layer."""
        layer = self.features.other_layer
        named = f"--dataset {self.dataset.id} --backbone {self.features.backbone}"
        return named if layer is None else f"{named} --layer {layer}"

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
    entries = {name: entries_stage(session, [*scorables, *beside], name) for name in PROTOCOLS}
    named = method_names([scorable.identity for scorable in [*scorables, *beside]])  # together, as entries are
    called, untrained = named[: len(scorables)], tuple(named[len(scorables) :])
    methods = tuple(dict.fromkeys(called))
    firsts = dict(reversed(list(zip(called, scorables, strict=True))))
    mapped = {name: one for name, one in zip(untrained, beside, strict=True) if one.predict is None}
    shown = _advised_first({**{name: firsts[name] for name in methods}, **mapped}, entries["gallery"])
    with session.console.progress("drawing maps") as bar:
        explorer = explore(features.dataset, shown, progress=bar.update)
    return ReportData(
        features=features,
        source=session.artifacts.dataset_source(features.dataset.id),
        runs=runs,
        methods=methods,
        untrained=untrained,
        scores=scores,
        entries=entries,
        comparisons={name: _compared(found) for name, found in entries.items()},
        cells=_galleries(session, scorables, galleries),
        claims=_judged(session.artifacts, features, entries, runs),
        layers=layer_sentences(
            runs_on(session.artifacts, features.dataset.id, features.backbone, [run.method for run in runs])
        ),
        histories=history_frame(zip(called, runs, strict=True), isolated(features.dataset.levels)),
        retrieval=read_retrieval(session.artifacts, features),
        explorer=explorer,
    )


def reproduced_path(artifacts: Artifacts, features: LabelledFeatures) -> Path:
    """Where `pipeline reproduce` leaves what became of the claims: with it, they have a section on the page."""
    return artifacts.root / "reports" / f"reproduced-{page_name(features)}.json"


def retrieval_path(artifacts: Artifacts, features: LabelledFeatures) -> Path:
    """Where `pipeline retrieve` leaves what it measured."""
    return artifacts.root / "reports" / f"retrieval-{page_name(features)}.json"


def page_name(features: LabelledFeatures) -> str:
    """What files about one dataset, backbone and layer are called in `reports/`."""
    layer = "" if features.other_layer is None else f"-layer-{features.layer}"
    return f"{features.dataset.id}-{features.backbone}{layer}"


def page_title(features: LabelledFeatures) -> str:
    """What a page is about: with it, a page knows another of the same features again."""
    layer = "" if features.other_layer is None else f", layer {features.layer}"
    return f"{features.dataset.id} through {features.backbone}{layer}"


def read_retrieval(artifacts: Artifacts, features: LabelledFeatures) -> RetrievalResults | None:
    """What `pipeline retrieve` left, None if it was not run.

    One that is damaged, or of runs on other features (another number format, vectors given anew under the same name),
    is named and left out: a page lacks a section, not the command its page.
    """
    path = retrieval_path(artifacts, features)
    if not os.path.lexists(path):
        return None
    from pipeline.retrieval.records import RetrievalResults  # brings torch

    try:
        found = read_record(path, RetrievalResults)
        if found is None:
            return None
        if found.layer != features.layer:
            tell(f"{path} is of layer {found.layer}, not of layer {features.layer}: left out")
            return None
        measured = {run for method in found.methods for run in method.runs}
        if others := sorted(measured - {run.id for run in runs_of(artifacts, features)}):
            tell(
                f"{path} is of run {others[0]}, which is none on the features {features.store.folder.name}: left out; "
                "`pipeline retrieve` measures those that are"
            )
            return None
        return found
    except PipelineError as error:
        tell(f"{error}; left out: `pipeline retrieve` writes it again")
        return None


def _compared(entries: Sequence[Entry]) -> list[Comparison]:
    """Every pair of methods that share a seed."""
    try:
        return compare(entries)
    except PipelineError:  # one method alone, or no seed in common: there is nothing to compare, which the page says
        return []


def _judged(
    artifacts: Artifacts, features: LabelledFeatures, entries: Mapping[str, Sequence[Entry]], runs: Sequence[Run]
) -> Sequence[Judged]:
    """The published claims, if `reproduce` was run and v5 and mrl share a seed.

    On search, which takes minutes to measure, they are those that it left, if they are of these features and runs.
    """
    path = reproduced_path(artifacts, features)
    seeds = [{entry.seed for entry in entries[PROTOCOLS[0]] if entry.method == name} for name in ("v5", "mrl")]
    if not path.is_file() or not seeds[0] & seeds[1]:
        return ()
    from pipeline.claims.cost import cost_measurements  # these two count by torch, which no other section needs
    from pipeline.claims.search import search_measurements

    found = judge(entries, {**cost_measurements(str(runs[0].record["head"])), **search_measurements(())})
    try:
        left = read_record(path, dict[str, Any]) or {}
        measured = {*left.get("runs", ())}
        same = left.get("fingerprint") == features.fingerprint and measured and measured <= {run.id for run in runs}
        known = {row["id"]: from_json(Judged, row) for row in left["claims"]} if same else {}
    except (PipelineError, TypeError, KeyError) as error:
        tell(f"{path}: {error}; left out: `pipeline reproduce` writes it again")
        known = {}
    return [known.get(claim.id, claim) if claim.verdict == NOT_MEASURED else claim for claim in found]


def _galleries(session: Session, scorables: Sequence[Scorable], measure: bool) -> list[Score]:
    kept = all(
        scorable.folder is not None and any(scorable.folder.glob("galleries-all-k5-*")) for scorable in scorables
    )
    return grid_stage(session, scorables, None) if measure or kept else []


def _advised_first(shown: Mapping[str, Scorable], entries: Sequence[Entry]) -> dict[str, Scorable]:
    """The advised method and the best of the others first: the explorer opens on these two.

    Features less their mean have a map only as one of these: their maps look like those of the features.
    """
    found = answer(entries)
    named = () if found is None else (found.method, found.rival)
    first = [name for name in named if name is not None and name in shown]
    return {name: shown[name] for name in (*first, *(name for name in shown if name not in {*first, "centred*"}))}
