"""`pipeline sweep`: the batch rerun on stored features."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from pipeline.terminal.command import Session, command
from pipeline.terminal.options import NameList, NumberList, engine_options, force_option, known_methods


@command("sweep", example="pipeline sweep --methods v5,mrl --seeds 1,2,3 --heads paper,linear --lrs 1e-4,1e-3")
@click.option("--grid", "grid_file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="TOML of axes.")
@click.option("--methods", type=NameList(known_methods), help="Default: v5,mrl,joint.")
@click.option("--seeds", type=NumberList(int), help="Trained together. Default: 42.")
@click.option("--heads", type=NameList(), help="Head presets. Default: paper.")
@click.option("--datasets", type=NameList(), help="Default: what `embed` used last.")
@click.option("--backbones", type=NameList(), help="Default: what `embed` used last.")
@click.option("--layers", type=NumberList(int), help="Default: -1.")
@click.option("--epochs", type=NumberList(int), help="Default: the method's.")
@click.option("--batch-sizes", type=NumberList(int), help="Default: the method's.")
@click.option("--lrs", type=NumberList(), help="Learning rates. Default: the method's.")
@click.option("--schedules", type=NameList(), help="Of the learning rate: constant, one-cycle. Default: the method's.")
@click.option(
    "--devices",
    default="auto",
    show_default=True,
    help="auto, cpu, cuda, all, cuda:1, cuda:0,cuda:2 or cpu:2: a process each takes points of the grid.",
)
@engine_options
@click.option("--output", type=click.Path(path_type=Path), help="Default: ARTIFACTS/reports/sweep.parquet")
@force_option
def COMMAND(
    session: Session,
    grid_file: Path | None,
    devices: str,
    engine: str,
    ray_address: str | None,
    output: Path | None,
    force: bool,
    **axes: Any,
) -> dict[str, Any]:
    """Fit and score every combination of methods, seeds, heads, layers, datasets and settings.

    Finished runs are skipped, so a sweep that was interrupted goes on when it is called again. Options override the
    axes of the same name in the TOML file. On several devices a process each takes the next combination; the seeds of
    one are trained together, so that only combinations are shared out. With --engine ray a combination is a task, on a
    GPU each where the cluster has any, unless --devices is cpu.
    """
    from cache.workers import choose_devices
    from pipeline.stages.sweep import Grid, read_grid, results_frame
    from pipeline.stages.with_progress import sweep_stage
    from pipeline.workspace.outputs import check_output, made_by, write_table

    given = {name: axis for name, axis in axes.items() if axis is not None}
    grid = Grid.of({**(read_grid(grid_file) if grid_file else {}), **given}, str(grid_file or "sweep"))
    target = output or session.artifacts.root / "reports" / "sweep.parquet"
    current = session.artifacts.current() if session.artifacts.embedded_before else None
    facts = {
        "command": "sweep",
        "grid": {name: list(axis) for name, axis in asdict(grid).items()},
        "current": [current.dataset_id, current.backbone.name] if current else None,
    }
    check_output(target, force=force or output is None, own=made_by(target) == facts)
    if engine == "ray":
        from pipeline.stages.sweep_ray import sweep_on_cluster

        swept = sweep_on_cluster(session, grid, devices, ray_address)
    elif ray_address:
        raise click.UsageError("--ray-address goes with --engine ray.")
    else:
        chosen = choose_devices(devices)
        session.console.say(f"devices: {', '.join(chosen)}")
        swept = sweep_stage(session, grid, chosen)
    frame = results_frame(swept.runs, swept.scores)
    write_table(target, frame, facts)
    session.console.show(_table(frame))
    session.console.show(f"{len(swept.runs)} runs, {len(swept.trained)} trained now: {target}")
    return {"runs": [run.summary() for run in swept.runs], "trained": len(swept.trained), "output": str(target)}


def _table(frame: Any) -> Table:
    import polars as pl

    settings = ["dataset", "backbone", "layer", "method", "head", "epochs", "batch_size", "lr", "schedule"]
    shown = [name for name in settings if name == "method" or frame[name].n_unique() > 1]
    means = (
        frame.group_by([*settings, "dim", "level"], maintain_order=True)
        .agg(pl.col("accuracy").mean() * 100, pl.col("seed").n_unique().alias("seeds"))
        .pivot("level", index=[*settings, "dim", "seeds"], values="accuracy")
    )
    levels = [name for name in means.columns if name not in (*settings, "dim", "seeds")]
    table = Table(*shown, "seeds", "dim", *(f"level {level}" for level in levels), title="mean accuracy in %, gallery")
    for row in means.iter_rows(named=True):
        accuracies = ("" if row[level] is None else f"{row[level]:.1f}" for level in levels)
        table.add_row(*(str(row[name]) for name in (*shown, "seeds", "dim")), *accuracies)
    return table
