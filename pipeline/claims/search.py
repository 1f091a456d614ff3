"""The published claims on search: search-cost, storage, two-stage, compensation; from experiments, not from formulas.

The published scenario is a million documents of which 1,000, 0.1 %, pass a 64-dim filter. With fewer documents the
share is kept, not the number: what a filter loses depends on how many documents crowd around a query. "L0 recall" is
there "nearly all relevant docs kept", "coarse-category matches": documents of the query's coarsest class among the
candidates, over the most there could be. That is judged first. How often "recall" is meant otherwise, as recall@10
against the method's own full vector, is judged beside it under an id of its own; it rewards a prefix for repeating the
full vector and says nothing about labels.

Verdicts rest on real documents. Figures of a corpus that is partly simulated are shown beside them, called simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.claims.published import DIFFERENCE, Figure, Measurement
from pipeline.cost.counts import MILLION
from pipeline.evaluation.statistics import estimate
from pipeline.retrieval.experiment import Experiment, Plan, Trial, flops_per_query
from pipeline.retrieval.knn import search
from pipeline.retrieval.metrics import TOP, Outcome
from pipeline.retrieval.quantization import stored
from pipeline.retrieval.results import needed, over_seeds

Trials = Mapping[str, Mapping[int | None, Trial]]

FILTER, WIDER, FULL = 64, 128, 256
SHARE, WIDE_SHARE = 0.001, 0.02
"""Candidates of the published scenario, and of a wider filter shown beside it, as shares of the documents."""
_ASKED, _COUNTED = 2, 4096  # queries and documents of the search that is counted


def plan_for_claims(device: str, documents: int) -> Plan:
    """What has to be measured for the claims: both filters; the published share, twice that, and a wide one."""
    counts = (candidates(documents), 2 * candidates(documents), round(WIDE_SHARE * documents))
    return Plan(filters=(FILTER, WIDER), candidates=counts, formats=(), timed=False, device=device)


def candidates(documents: int) -> int:
    """The published number of candidates, as a share of these documents."""
    return min(max(TOP, round(SHARE * documents)), documents)


def search_measurements(found: Sequence[Experiment]) -> dict[str, Measurement]:
    """Measure the claims on search, by id, for `pipeline.claims.verdicts.judge`.

    :param found: experiments with v5 and mrl, by `plan_for_claims`, one corpus each: the verdict is of the largest
        real one. Without one, search-cost and storage alone.
    """
    measured = {"search-cost": _search_cost(), "storage": _storage()}
    by_corpus = sorted(((one.corpora[-1], _pairs(one.trials), one.levels) for one in found), key=lambda one: one[0])
    real = [one for one in by_corpus if one[1] and not one[0][1]]
    if not real:
        return measured
    (documents, _), trials, levels = real[-1]
    beside = [(size, pairs) for (size, simulated), pairs, _ in by_corpus if pairs and simulated]
    where = f"{documents:,} real documents"
    return measured | {
        "two-stage": _kept(trials, documents, where, levels[0], beside),
        "two-stage-recall": _recall(trials, documents, where, levels, beside),
        "compensation": _compensation(trials, documents, where, levels[0]),
        "compensation-recall": _candidates_needed(trials, documents, where),
    }


def _search_cost() -> Measurement:
    """Count the operations of a real search with torch's own counter, per document."""
    figures = {}
    for dim in (FILTER, WIDER, FULL):
        vectors = torch.ones(_COUNTED, dim)
        with FlopCounterMode(display=False) as counter:
            search(vectors[:_ASKED], stored(vectors, dim), 1)
        figures[str(dim)] = Figure(counter.get_total_flops() / (_ASKED * _COUNTED), None)
    passed = all(figure.value == 2 * int(name) for name, figure in figures.items())
    return Measurement(figures, passed, "operations counted in a search here; finding the nearest is not counted")


def _storage() -> Measurement:
    """Read the bytes off stored vectors."""
    figures = {
        str(dim): Figure(float(stored(torch.ones(1, dim), dim).bytes_per_document), None)
        for dim in (FILTER, WIDER, FULL)
    }
    passed = all(figure.value == 4 * int(name) for name, figure in figures.items())
    note = "a two-stage search keeps both: 64 and 256 dims are 1,280 bytes per document"
    return Measurement(figures, passed, "float32 vectors as stored", note)


def _pairs(trials: Sequence[Trial]) -> Trials:
    """Trials of v5 and mrl by seed, for the seeds that both have; empty if there are none."""
    by_method = {
        method: {t.embedded.identity.seed: t for t in trials if t.name == method and _fits(t)}
        for method in ("v5", "mrl")
    }
    common = [seed for seed in by_method["v5"] if seed in by_method["mrl"]]
    return {method: {seed: runs[seed] for seed in common} for method, runs in by_method.items()} if common else {}


def _fits(trial: Trial) -> bool:
    return FILTER in trial.measured.curves and WIDER in trial.measured.curves and trial.embedded.dim == FULL


def _kept(trials: Trials, documents: int, where: str, level: str, beside: Sequence[tuple[int, Trials]]) -> Measurement:
    """The published reading: documents of the query's coarsest class that the filter keeps."""
    first = next(iter(trials["v5"].values()))
    count, wide = candidates(documents), max(one.candidates or 0 for one in first.measured.outcomes)
    kept = _figures(trials, count, _level_0)
    figures = {
        **kept,
        **_named(_figures(trials, wide, _level_0), f"of {wide:,} candidates"),
        **_simulated(beside, _level_0),
        "MFLOPs at a million": Figure(flops_per_query(FILTER, MILLION, 1000, FULL) / 1e6, None),
    }
    protocol = f"documents of the query's {level} among {count:,} candidates by {FILTER} dims, {where}"
    return Measurement(figures, kept[DIFFERENCE].above(), protocol, seeds=len(trials["v5"]))


def _recall(
    trials: Trials, documents: int, where: str, levels: Sequence[str], beside: Sequence[tuple[int, Trials]]
) -> Measurement:
    """The other reading: recall@10 against the method's own full vector, and what the labels say of it."""
    count = candidates(documents)
    recall = _figures(trials, count, lambda outcome: outcome.recall)
    finest = _figures(trials, count, lambda outcome: outcome.precision[:, -1])
    figures = {
        **recall,
        **_named(finest, f"{levels[-1]} precision@10"),
        **_simulated(beside, lambda outcome: outcome.recall),
    }
    protocol = f"recall@10, {where}, {count:,} candidates by {FILTER} dims re-ranked by {FULL}"
    note = _in_words(recall[DIFFERENCE], finest[DIFFERENCE], levels)
    return Measurement(figures, recall[DIFFERENCE].above(), protocol, note, len(trials["v5"]))


def _compensation(trials: Trials, documents: int, where: str, level: str) -> Measurement:
    """The published reading: what mrl keeps with twice the candidates or a wider filter, against v5 with neither."""
    count = candidates(documents)
    ours = _values(trials["v5"], count, FILTER, _level_0)
    ways = {
        "mrl": (count, FILTER),
        "mrl, twice the candidates": (2 * count, FILTER),
        f"mrl, {WIDER} dims": (count, WIDER),
    }
    theirs = {name: _values(trials["mrl"], *way, _level_0) for name, way in ways.items()}
    behind = [n for n, values in theirs.items() if Figure.of(estimate(ours - values, span=(-1.0, 1.0))).above()]
    figures = {
        **{name: Figure.of(estimate(values)) for name, values in {"v5": ours, **theirs}.items()},
        "2,000 candidates": Figure(flops_per_query(FILTER, MILLION, 2000, FULL) / 1e6, None),
        "128 dims": Figure(flops_per_query(WIDER, MILLION, 1000, FULL) / 1e6, None),
    }
    matched = [name for name in ways if name not in ("mrl", *behind)]
    note = (
        "mrl keeps no fewer with the same filter: there is nothing to make up for"
        if "mrl" not in behind
        else f"v5's share is reached by {' and by '.join(matched)}"
        if matched
        else "mrl reaches v5's share neither with twice the candidates nor with the wider filter"
    )
    protocol = f"documents of the query's {level} among {count:,} candidates of v5 by {FILTER} dims, {where}"
    return Measurement(figures, "mrl" in behind and bool(matched), protocol, note, len(trials["v5"]))


def _candidates_needed(trials: Trials, documents: int, where: str) -> Measurement:
    """The other reading: candidates that mrl needs for the recall@10 that v5 has, in units of v5's."""
    count = candidates(documents)
    test = over_seeds([_ratio(trials["v5"][seed], trials["mrl"][seed], count) for seed in trials["v5"]])
    ratio = Figure(None, None) if test is None else Figure(test.mean, test.interval)
    recall = _figures(trials, count, lambda outcome: outcome.recall, WIDER)
    figures = {
        "mrl's candidates / v5's": ratio,
        **{f"{name}, recall@10 with {WIDER} dims": figure for name, figure in recall.items() if name != DIFFERENCE},
    }
    protocol = f"{where}, v5 with {count:,} candidates by {FILTER} dims; the interval of the ratio is over seeds"
    return Measurement(figures, ratio.above(1), protocol, _compensated(ratio), len(trials["v5"]))


def _level_0(outcome: Outcome) -> Any:
    assert outcome.level_recall is not None
    return outcome.level_recall[:, 0]


def _values(by_seed: Mapping[int | None, Trial], count: int, dim: int, quantity: Callable[[Outcome], Any]) -> Any:
    """The quantity by seed and query, [s, q]."""
    return np.stack([quantity(trial.measured.outcome(dim, count)) for trial in by_seed.values()])


def _figures(trials: Trials, count: int, quantity: Callable[[Outcome], Any], dim: int = FILTER) -> dict[str, Figure]:
    """The quantity of v5, mrl and their difference, with intervals over seeds and texts."""
    values = {method: _values(by_seed, count, dim, quantity) for method, by_seed in trials.items()}
    found = {name: Figure.of(estimate(array)) for name, array in values.items()}
    return {**found, DIFFERENCE: Figure.of(estimate(values["v5"] - values["mrl"], span=(-1.0, 1.0)))}


def _named(figures: Mapping[str, Figure], what: str) -> dict[str, Figure]:
    return {f"{name}, {what}": figure for name, figure in figures.items()}


def _simulated(beside: Sequence[tuple[int, Trials]], quantity: Callable[[Outcome], Any]) -> dict[str, Figure]:
    """The same figures of corpora that are partly simulated."""
    found: dict[str, Figure] = {}
    for documents, trials in beside:
        here = _figures(trials, candidates(documents), quantity)
        found |= _named(here, f"{documents:,} documents, simulated")
    return found


def _in_words(recall: Figure, labels: Figure, levels: Sequence[str]) -> str:
    """Say what labels and agreement with the own full vector say, and whether they agree."""
    by_labels, by_recall = ("v5" if f.above() else "mrl" if f.below() else "neither" for f in (labels, recall))
    gaps = (
        f"by labels ({levels[-1]}, precision@10) {by_labels} is ahead "
        f"({100 * (labels.value or 0):+.1f} points, v5 - mrl), "
        f"by agreement with its own full vector {by_recall} ({100 * (recall.value or 0):+.1f})"
    )
    if by_labels == by_recall:
        return gaps
    return f"{gaps}: the two disagree, and labels are what a reader asks for"


def _ratio(v5: Trial, mrl: Trial, count: int) -> float | None:
    target = float(v5.measured.curves[FILTER][count - 1])
    fewest = needed(mrl.measured.curves[FILTER], target)
    return None if fewest is None else fewest / count


def _compensated(ratio: Figure) -> str:
    if ratio.value is None:
        return "mrl never reaches v5's recall with the candidates that were measured"
    if ratio.value < 1:
        return f"it is v5 that needs more: mrl has v5's recall with {ratio.value:.0%} of its candidates"
    return f"mrl needs {ratio.value:.1f} times v5's candidates"
