"""The published claims on search: search-cost, storage, two-stage, compensation; from experiments, not from formulas.

The published scenario is a million documents of which 1,000, 0.1 %, pass a 64-dim filter. With fewer documents the
share is kept, not the number: what a filter loses depends on how many documents crowd around a query. Nothing was
published about how "recall" was counted; the figures are those of the domain accuracy at 64 dims. So the claim is
tested on recall@10 against the full vector, as "recall" of a search is usually meant, and beside it stand what the
labels say: precision@10 on the finest level, and the share of the query's domain that the filter keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.claims.published import DIFFERENCE, Figure, Measurement
from pipeline.evaluation import statistics
from pipeline.retrieval.experiment import Experiment, Plan, Trial, flops_per_query
from pipeline.retrieval.knn import search
from pipeline.retrieval.metrics import Outcome
from pipeline.retrieval.quantization import stored
from pipeline.retrieval.results import estimate, needed

Trials = Mapping[str, Mapping[int, Trial]]

FILTER, WIDER, FULL = 64, 128, 256
SHARE = 0.001
"""Candidates of the published scenario, as a share of its documents."""
MILLION = 1_000_000
_ASKED, _COUNTED = 2, 4096  # queries and documents of the search that is counted


def plan_for_claims(device: str) -> Plan:
    """What has to be measured for the claims: both filters, candidates up to twenty times the published share."""
    return Plan(filters=(FILTER, WIDER), formats=(), timed=False, device=device)


def search_measurements(found: Experiment | None) -> dict[str, Measurement]:
    """Measure the claims on search, by id, for `pipeline.claims.verdicts.judge`.

    :param found: an experiment with v5 and mrl, by `plan_for_claims`; without one, search-cost and storage alone.
    """
    measured = {"search-cost": _search_cost(), "storage": _storage()}
    if found is None:
        return measured
    documents = found.corpora[-1][0]
    trials = _pairs([trial for trial in found.trials if trial.documents == documents])
    if trials:
        simulated = found.corpora[-1][1]
        where = f"{documents:,} documents" + (f", {simulated:,} of them simulated" if simulated else "")
        measured |= {
            "two-stage": _two_stage(trials, documents, where, found.levels),
            "compensation": _compensation(trials, documents, where),
        }
    return measured


def _search_cost() -> Measurement:
    """Count the operations of a real search with torch's own counter, per document."""
    figures = {}
    for dim in (FILTER, WIDER, FULL):
        vectors = torch.ones(_COUNTED, dim)
        with FlopCounterMode(display=False) as counter:
            search(vectors[:_ASKED], stored(vectors, dim), 1)
        figures[str(dim)] = Figure(counter.get_total_flops() / (_ASKED * _COUNTED), None)
    passed = all(figure.value == 2 * int(name) for name, figure in figures.items())
    return Measurement(
        figures, passed, "operations counted in a search of this package; finding the nearest is not counted"
    )


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
        method: {t.embedder.facts["seed"]: t for t in trials if t.name == method and _fits(t)}
        for method in ("v5", "mrl")
    }
    common = sorted(by_method["v5"].keys() & by_method["mrl"].keys())
    return {method: {seed: runs[seed] for seed in common} for method, runs in by_method.items()} if common else {}


def _fits(trial: Trial) -> bool:
    return FILTER in trial.measured.curves and WIDER in trial.measured.curves and trial.embedder.dim == FULL


def _two_stage(trials: Trials, documents: int, where: str, levels: Sequence[str]) -> Measurement:
    count = _published(documents)
    recall = _figures(trials, count, lambda outcome: outcome.recall)
    finest = _figures(trials, count, lambda outcome: outcome.precision[:, -1])
    kept = _figures(trials, count, lambda outcome: _of(outcome.level_recall)[:, 0])
    wide = max(o.candidates or 0 for o in next(iter(trials["v5"].values())).measured.outcomes)
    kept_wide = _figures(trials, wide, lambda outcome: _of(outcome.level_recall)[:, 0])
    figures = {
        **recall,
        **{f"{name}, {levels[-1]} precision@10": figure for name, figure in finest.items()},
        **{f"{name}, {levels[0]} kept": figure for name, figure in kept.items()},
        **{f"{name}, {levels[0]} kept by {wide:,}": figure for name, figure in kept_wide.items()},
        "MFLOPs at a million": Figure(flops_per_query(FILTER, MILLION, 1000, FULL) / 1e6, None),
    }
    protocol = f"recall@10, {where}, {count:,} candidates by {FILTER} dims re-ranked by {FULL}"
    note = _in_words(recall[DIFFERENCE], finest[DIFFERENCE], levels) + _coarsely(kept_wide, levels[0], wide)
    passed = _side(recall[DIFFERENCE]) > 0
    return Measurement(figures, passed, protocol, note, len(trials["v5"]))


def _published(documents: int) -> int:
    """The published number of candidates, as a share of these documents."""
    return Plan(candidates=(round(SHARE * documents),)).counts(documents)[0]


def _figures(trials: Trials, count: int, quantity: Callable[[Outcome], Any], dim: int = FILTER) -> dict[str, Figure]:
    """The quantity of v5, mrl and their difference, with intervals over seeds and texts."""
    values = {
        method: np.stack([quantity(_outcome(trial, dim, count)) for trial in by_seed.values()])
        for method, by_seed in trials.items()
    }
    estimates = {name: estimate(array) for name, array in values.items()}
    estimates[DIFFERENCE] = estimate(values["v5"] - values["mrl"], (-1.0, 1.0))
    return {name: Figure(e.value, e.ci95) for name, e in estimates.items()}


def _outcome(trial: Trial, dim: int, count: int) -> Outcome:
    return next(o for o in trial.measured.outcomes if (o.dim, o.candidates) == (dim, count))


def _of(array: Any) -> Any:
    assert array is not None
    return array


def _side(figure: Figure) -> int:
    """1 if a difference is above 0 with 95 % confidence, -1 if below, 0 if neither."""
    low, high = figure.interval or (0.0, 0.0)
    return int(low > 0) - int(high < 0)


def _in_words(recall: Figure, labels: Figure, levels: Sequence[str]) -> str:
    """Say what labels and agreement with the own full vector say, and whether they agree."""
    names = {1: "v5", -1: "mrl", 0: "neither"}
    by_labels, by_recall = names[_side(labels)], names[_side(recall)]
    gaps = (
        f"by labels ({levels[-1]}, precision@10) {by_labels} is ahead "
        f"({100 * (labels.value or 0):+.1f} points, v5 - mrl), "
        f"by agreement with its own full vector {by_recall} ({100 * (recall.value or 0):+.1f})"
    )
    if by_labels == by_recall:
        return gaps
    return f"{gaps}: the two disagree, and labels are what a reader asks for"


def _coarsely(kept: Mapping[str, Figure], level: str, candidates: int) -> str:
    """Say whose filter keeps more of the query's coarse class, where one does: the published reading that is left."""
    side = _side(kept[DIFFERENCE])
    if not side:
        return ""
    ahead, behind = ("v5", "mrl") if side > 0 else ("mrl", "v5")
    return (
        f"; of {candidates:,} candidates more of {ahead}'s are of the query's {level}: "
        f"{kept[ahead].value or 0:.0%} of those there could be against {behind}'s {kept[behind].value or 0:.0%}"
    )


def _compensation(trials: Trials, documents: int, where: str) -> Measurement:
    """Candidates that mrl needs for the recall that v5 has at the published share, in units of v5's."""
    count = _published(documents)
    ratios = [_ratio(trials["v5"][seed], trials["mrl"][seed], count) for seed in trials["v5"]]
    reached = [ratio for ratio in ratios if ratio is not None]
    test = statistics.paired_test(reached) if len(reached) == len(ratios) else None
    ratio = Figure(None, None) if test is None else Figure(test.mean, test.interval)
    figures = {
        "mrl's candidates / v5's": ratio,
        **{f"{name}, recall@10 with {WIDER} dims": f for name, f in _recall(trials, count, WIDER).items()},
        "2,000 candidates": Figure(flops_per_query(FILTER, MILLION, 2000, FULL) / 1e6, None),
        "128 dims": Figure(flops_per_query(WIDER, MILLION, 1000, FULL) / 1e6, None),
    }
    passed = ratio.interval is not None and ratio.interval[0] > 1
    protocol = f"{where}, v5 with {count:,} candidates by {FILTER} dims; the interval of the ratio is over seeds"
    return Measurement(figures, passed, protocol, _compensated(ratio), len(trials["v5"]))


def _recall(trials: Trials, count: int, dim: int) -> dict[str, Figure]:
    found = _figures(trials, count, lambda outcome: outcome.recall, dim)
    return {name: figure for name, figure in found.items() if name != DIFFERENCE}


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
