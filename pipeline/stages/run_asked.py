"""Which run a command takes that needs one: what its options name, else the one that the page and `run` advise.

A method differs from another on purpose, so the choice between methods is made by accuracy: by the same paired
comparison of kept predictions that is behind the first sentence of `run` and of the page
(`pipeline.evaluation.recommend.answer`), here among what can be loaded, which are runs. Where predictions are not kept
yet, joint is taken, else the first in the table of methods. Seeds differ by luck: of one method the lowest is taken. It
costs reading the kept predictions. The alternative, refusing until a run is named, answers no question that a person
can answer better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from pipeline.evaluation.comparison import Entry
from pipeline.evaluation.recommend import answer
from pipeline.evaluation.score import kept_predictions
from pipeline.terminal.command import Session
from pipeline.workspace.run_names import names
from pipeline.workspace.runs import Run, runs_by_id
from pipeline.workspace.select_run import chosen_line, first_run, matching, runs_asked


def run_asked(session: Session, options: Mapping[str, Any], among: Sequence[Run] | None = None) -> Run:
    """The run that `--run`, `--method` and `--seed` name or leave to be advised; a line says which.

    :param among: by default those of `--dataset` and `--backbone`.
    :raises PipelineError: if there is none.
    """
    method, seed, run_id = options["method"], options["seed"], options["run_id"]
    if run_id and (method or seed is not None):
        raise click.UsageError("--run names a run by itself: leave out --method and --seed")
    if run_id:
        among = runs_by_id(session.artifacts, [run_id])
    elif among is None:
        among = runs_asked(session.artifacts, options["dataset"], options["backbone"], options.get("layer"))
    run, why = advised_run(among, method, seed)
    session.console.say(chosen_line(run, among, method, seed, why))
    return run


def advised_run(runs: Sequence[Run], method: str | None, seed: int | None) -> tuple[Run, str]:
    """The run that the options leave and its predictions advise, and why it is taken, in a few words ("" if alone).

    :raises PipelineError: if none is left.
    """
    left = matching(runs, method, seed)
    if len(left) == 1:
        return left[0], ""
    named = names([run.record for run in left])
    if len(set(named)) == 1:
        return first_run(left, None, None), "lowest seed"
    found = _entries(left, named)
    if found is None:
        return first_run(left, None, None), "not all are scored: joint first"
    best = answer(found)
    if best is None:
        return first_run(left, None, None), "the test texts tell no method from another: joint first"
    chosen = min((run for run, name in zip(left, named, strict=True) if name == best.method), key=lambda run: run.seed)
    why = "the best" if best.pays or best.pays is None else "training did not pay"
    return chosen, f"advised among {len(set(named))} methods: {why}"


def _entries(runs: Sequence[Run], named: Sequence[str]) -> list[Entry] | None:
    """What the runs predicted in the gallery protocol, k = 5; None if one of them was not scored."""
    found = []
    for run, name in zip(runs, named, strict=True):
        predictions = kept_predictions(run.folder, "gallery")
        if predictions is None:
            return None
        found.append(Entry(name, None if run.closed_form else run.seed, predictions, closed_form=run.closed_form))
    return found
