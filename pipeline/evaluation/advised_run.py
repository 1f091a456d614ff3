"""Which run a command takes that needs one: what its options name, else the one that the kept scores advise.

A method differs from another on purpose, so the choice between methods is made by accuracy: the mean over prefixes and
levels of the kept gallery scores, as `pipeline score` and `run` advise. Where a run is not scored yet, joint is taken,
else the first in the table of methods. Seeds differ by luck: of one method the lowest is taken. It costs reading the
kept scores. The alternative, refusing until a run is named, answers no question that a person can answer better.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from pipeline.evaluation.score import stored_scores
from pipeline.workspace.run_names import names
from pipeline.workspace.runs import Run
from pipeline.workspace.select_run import first_run, matching


def advised_run(runs: Sequence[Run], method: str | None, seed: int | None) -> tuple[Run, str]:
    """The run that the options leave and the scores advise, and why it is taken, in a few words ("" if it is alone).

    :raises PipelineError: if none is left.
    """
    left = matching(runs, method, seed)
    named = names([run.record for run in left])
    accuracies = [_accuracy(run) for run in left]
    if len(set(named)) == 1 or any(value is None for value in accuracies):
        run = first_run(left, None, None)
        others = len(left) > 1
        return run, ("lowest seed" if len(set(named)) == 1 else "not all are scored: joint first") if others else ""
    groups: dict[str, list[float]] = {}
    for name, value in zip(named, accuracies, strict=True):
        groups.setdefault(name, []).append(float(value or 0))
    first = names_in_order(left, named)
    best = max(first, key=lambda name: round(mean(groups[name]), 6))
    chosen = min((run for run, name in zip(left, named, strict=True) if name == best), key=lambda run: run.seed)
    return chosen, f"highest mean accuracy of {len(groups)} methods in the gallery protocol, {mean(groups[best]):.1%}"


def names_in_order(runs: Sequence[Run], named: Sequence[str]) -> list[str]:
    """Names of runs, that of `first_run` first: of equal accuracies it is taken."""
    first = first_run(runs, None, None)
    place = next(at for at, run in enumerate(runs) if run.id == first.id)
    return list(dict.fromkeys([named[place], *named]))


def _accuracy(run: Run) -> float | None:
    """Mean accuracy over prefixes and levels, gallery protocol, k = 5; None if it is not kept."""
    for score in stored_scores(run.folder):
        if (score.protocol, score.k) == ("gallery", 5):
            return mean(level.accuracy for prefix in score.prefixes for level in prefix.levels)
    return None
