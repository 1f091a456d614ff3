"""The runs that the options of a command leave, and how a choice among them is said in one line.

What differs in the seed alone differs by luck. Methods, heads and layers differ on purpose: which of them is taken is
always said, with what else there is (`pipeline.stages.run_asked` chooses by the kept scores).
"""

from __future__ import annotations

from collections.abc import Sequence

from heads.methods import METHODS
from pipeline.errors import PipelineError
from pipeline.workspace.artifacts import Artifacts, lasting_source
from pipeline.workspace.features import is_layer
from pipeline.workspace.run_names import names
from pipeline.workspace.runs import Run, all_runs

_FIRST = "joint"


def runs_asked(artifacts: Artifacts, dataset: str | None, backbone: str | None, layer: int | None = None) -> list[Run]:
    """The runs of a dataset (id, name or source) and a backbone, by default those that `embed` used last.

    :param layer: whose features they were trained on; any layer if None.
    :raises PipelineError: if there is none.
    """
    current = artifacts.current()
    groups = [[current.dataset_id]] if dataset is None else artifacts.ids_answering(dataset)
    ids = [id_ for group in groups for id_ in group]
    name = current.backbone.name if backbone is None else lasting_source(backbone)
    runs = list(all_runs(artifacts))
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


def first_run(runs: Sequence[Run], method: str | None, seed: int | None) -> Run:
    """The run that the options leave; of several joint's, else that of the first method, and of these the lowest seed.

    :raises PipelineError: if none is left.
    """
    place = {name: at for at, name in enumerate(METHODS)} | {_FIRST: -1}
    left = matching(runs, method, seed)
    return min(
        left, key=lambda run: (place.get(run.method, len(place)), run.seed, run.record["head"] != "paper", run.id)
    )


def chosen_line(run: Run, runs: Sequence[Run], method: str | None, seed: int | None, why: str = "") -> str:
    """One line: the run that is taken, why, and what else the options left."""
    left = [other for other in matching(runs, method, seed) if other.id != run.id]
    said = f"run {run.id}: {run.method}, {run.record['head']} head, seed {run.seed}, of {run.record['dataset']}"
    said += f" ({why})" if why else ""
    if not left:
        return said
    options = [*(["--method"] if method is None else []), *(["--seed"] if seed is None else []), "--run"]
    return f"{said}; also trained: {listed(left)} ({', '.join(options)})"


def listed(runs: Sequence[Run]) -> str:
    """Runs by name with their seeds, such as `v5 (head linear) seeds 1, 2`."""
    seeds: dict[str, list[int]] = {}
    for name, run in zip(names([run.record for run in runs]), runs, strict=True):
        seeds.setdefault(name, []).append(run.seed)
    return "; ".join(
        f"{name} seed{'s' if len(found) > 1 else ''} {', '.join(map(str, sorted(found)))}"
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
