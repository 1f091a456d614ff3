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

from heads.methods import METHODS
from pipeline.errors import PipelineError
from pipeline.evaluation.comparison import Entry
from pipeline.evaluation.recommend import answer
from pipeline.evaluation.score import kept_predictions
from pipeline.terminal.command import Session
from pipeline.workspace.artifacts import Artifacts, lasting_source
from pipeline.workspace.features import is_layer
from pipeline.workspace.run_names import names
from pipeline.workspace.runs import Run, all_runs, runs_by_id


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
    left = matching(among, method, seed)
    run, why = advised_run(left)
    flags = [*(["--method"] if method is None else []), *(["--seed"] if seed is None else []), "--run"]
    session.console.say(chosen_line(run, left, why, ", ".join(flags)))
    return run


def advised_run(left: Sequence[Run]) -> tuple[Run, str]:
    """The run that its predictions advise, and why it is taken, in a few words ("" if alone).

    Of a method's runs none that an earlier release trained otherwise, where there are newer ones.
    """
    left = [run for run in left if _trainer(run) == max(_trainer(one) for one in left if one.method == run.method)]
    if len(left) == 1:
        return left[0], ""
    named = names([run.record for run in left])
    if len(set(named)) == 1:
        return first_run(left), "lowest seed"
    found = _entries(left, named)
    if found is None:
        return first_run(left), "not all are scored: joint first"
    best = answer(found)
    if best is None:
        return first_run(left), "the test texts tell no method from another: joint first"
    chosen = min((run for run, name in zip(left, named, strict=True) if name == best.method), key=lambda run: run.seed)
    why = "the best" if best.pays or best.pays is None else "training did not pay"
    return chosen, f"advised among {len(set(named))} fitted methods: {why}"


def _trainer(run: Run) -> int:
    return int(run.record["hyperparameters"].get("trainer", 0))


def _entries(runs: Sequence[Run], named: Sequence[str]) -> list[Entry] | None:
    """What the runs predicted in the gallery protocol, k = 5; None if one of them was not scored."""
    found = []
    for run, name in zip(runs, named, strict=True):
        predictions = kept_predictions(run.folder, "gallery")
        if predictions is None:
            return None
        found.append(Entry(name, None if run.closed_form else run.seed, predictions, closed_form=run.closed_form))
    return found


def runs_asked(artifacts: Artifacts, dataset: str | None, backbone: str | None, layer: int | None = None) -> list[Run]:
    """The runs of a dataset (id, name or source) and a backbone, by default those that `embed` used last.

    :param layer: whose features they were trained on; any layer if None.
    :raises PipelineError: if there is none.
    """
    current = artifacts.current()
    groups = [[current.dataset_id]] if dataset is None else artifacts.ids_answering(dataset)
    ids = [id_ for group in groups for id_ in group]
    name = current.backbone.name if backbone is None else lasting_source(backbone)
    runs = all_runs(artifacts)
    for group in groups:
        of_dataset = [run for run in runs if run.record["dataset"] in group]
        found = [run for run in of_dataset if name in (run.record["backbone"], run.record["backbone_source"])]
        left = [run for run in found if layer is None or is_layer(run.record["features"], layer)]
        if found and not left:
            there = ", ".join(dict.fromkeys(str(run.record["layer"]) for run in found))
            raise PipelineError(
                f"no run on features of {name} was trained on layer {layer}, only on {there}",
                f"name one of these: --layer {there}",
            )
        if left:
            return left
    of_dataset = [run for run in runs if run.record["dataset"] in ids]
    asked = dataset or current.dataset_id
    if not ids:
        known = ", ".join(dict.fromkeys(run.record["dataset"] for run in runs)) or "none"
        raise PipelineError(
            f"no dataset embedded in {artifacts.root} answers to {asked}; runs there are of: {known}",
            f"run `pipeline embed {asked}` and `pipeline fit-head --method joint` first, or name another --dataset",
        )
    others = ", ".join(dict.fromkeys(run.record["backbone"] for run in of_dataset))
    raise PipelineError(
        f"no run was trained on {asked} with features of {name}" + (f", only of {others}" if others else ""),
        f"name one of these: --backbone {others}"
        if others
        else f"train one: pipeline fit-head --method joint --dataset {ids[0]} --backbone {name}",
    )


def first_run(runs: Sequence[Run]) -> Run:
    """Of several joint's, else that of the first method; of these the lowest seed."""
    place = {name: at for at, name in enumerate(METHODS)} | {"joint": -1}
    return min(
        runs, key=lambda run: (place.get(run.method, len(place)), run.seed, run.record["head"] != "paper", run.id)
    )


def chosen_line(run: Run, left: Sequence[Run], why: str, flags: str) -> str:
    """One line: the run that is taken, why, and what else the options left, which `flags` would name."""
    others = [other for other in left if other.id != run.id]
    seeded = "" if run.closed_form else f", seed {run.seed}"
    said = f"run {run.id}: {run.method}, {run.record['head']} head{seeded}, of {run.record['dataset']}"
    said += f" ({why})" if why else ""
    return f"{said}; also trained: {listed(others)} ({flags})" if others else said


def listed(runs: Sequence[Run]) -> str:
    """Runs by name with their seeds, such as `v5 (head linear) seeds 1, 2`; closed forms have none."""
    seeds: dict[str, list[int]] = {}
    for name, run in zip(names([run.record for run in runs]), runs, strict=True):
        seeds.setdefault(name, []).extend([] if run.closed_form else [run.seed])
    return "; ".join(
        f"{name} seed{'s' if len(found) > 1 else ''} {', '.join(map(str, sorted(found)))}" if found else name
        for name, found in seeds.items()
    )


def matching(runs: Sequence[Run], method: str | None, seed: int | None) -> list[Run]:
    """The runs of a method and a seed, where these are given.

    :raises PipelineError: if none is left.
    """
    left = [run for run in runs if method in (None, run.method) and (seed in (None, run.seed) or run.closed_form)]
    if not left:
        asked = " and ".join(
            part for part in (f"method {method}" if method else "", "" if seed is None else f"seed {seed}") if part
        )
        raise PipelineError(
            f"no run with {asked} of {runs[0].record['dataset']}; there are: {listed(runs)}",
            "name one of these" + ("" if method is None else f", or train one: pipeline fit-head --method {method}"),
        )
    return left
