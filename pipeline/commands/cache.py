"""`pipeline cache`: the stored features, and which of them no run uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich import box
from rich.table import Table

from pipeline.terminal.command import Session, command


@click.group("cache")
def COMMAND() -> None:
    """Look after stored features."""


def _stores(session: Session, names: tuple[str, ...]) -> list[Any]:
    import cache
    from pipeline.errors import PipelineError

    stores = cache.find_stores(session.artifacts.features)
    known = {name: store for store in stores for name in (store.folder.name, str(store.folder.resolve()))}
    wanted = [str(Path(name).resolve()) if Path(name).is_dir() else name for name in names]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise PipelineError(
            f"no store named {', '.join(sorted(unknown))} in {session.artifacts.features}",
            "see `pipeline cache list` for the names",
        )
    return [store for store in stores if not names or store in [known[name] for name in wanted]]


def _stores_there(session: Session, names: tuple[str, ...]) -> list[Any]:
    """The same where there must be one: of a mistyped folder nothing would be read, and all be well."""
    from pipeline.errors import PipelineError

    if not session.artifacts.root.is_dir():
        raise PipelineError(f"there is no folder {session.artifacts.root}", "check --artifacts (or PIPELINE_ARTIFACTS)")
    stores = _stores(session, names)
    if not stores:
        raise PipelineError(
            f"there are no features in {session.artifacts.features}",
            "run `pipeline embed DATASET`, or check --artifacts",
        )
    return stores


def _bytes(n: int) -> str:
    return f"{n / 1e9:,.2f} GB" if n >= 1e9 else f"{n / 1e6:,.1f} MB"


def _runs_using(session: Session) -> dict[str, int]:
    from pipeline.workspace.runs import all_runs

    counts: dict[str, int] = {}
    for run in all_runs(session.artifacts):
        fingerprint = str(run.record["fingerprint"])
        counts[fingerprint] = counts.get(fingerprint, 0) + 1
    return counts


@command("list", example="pipeline cache list")
def list_stores(session: Session) -> dict[str, Any]:
    """Stores with their rows, bytes, last use, and how many runs refer to them."""
    used = _runs_using(session)
    table = Table(box=box.SIMPLE_HEAD, padding=0)
    for column in ("store", "layer", "computed\n> stored", "rows", "bytes", "shards", "runs", "last used"):
        figure = column in ("layer", "rows", "bytes", "shards", "runs")
        table.add_column(column, justify="right" if figure else "left", no_wrap=column != "store", overflow="fold")
    records = []
    for store in _stores(session, ()):
        d = store.description
        runs = used.get(str(d["fingerprint"]), 0)
        dtypes = f"{d.get('compute_dtype', '?')}\n> {d['store_dtype']}"
        last_used = store.last_used.isoformat(sep=" ", timespec="minutes") if store.last_used else "never"
        day = last_used.partition(" ")[0]
        table.add_row(
            store.folder.name, str(d["layer"]), dtypes, f"{store.rows:,}",
            _bytes(store.bytes), str(store.shards), str(runs), day,
        )  # fmt: skip
        records.append(
            {
                "store": str(store.folder),
                "backbone": d["backbone"],
                "fingerprint": d["fingerprint"],
                "layer": d["layer"],
                "compute_dtype": d.get("compute_dtype"),
                "dtype": d["store_dtype"],
                "rows": store.rows,
                "bytes": store.bytes,
                "shards": store.shards,
                "runs": runs,
                "last_used": last_used,
            }
        )
    session.console.show(table if records else f"no features in {session.artifacts.features} yet")
    return {"stores": records}


@command("verify", example="pipeline cache verify --repair")
@click.argument("names", nargs=-1, metavar="[STORE]...")
@click.option("--repair", is_flag=True, help="Drop damaged rows; the next `embed` computes just those again.")
def verify_stores(session: Session, names: tuple[str, ...], repair: bool) -> dict[str, Any]:
    """Read every byte of the stores and name each damaged shard and row."""
    import cache
    from pipeline.errors import PipelineError

    damaged, rows = [], 0
    for store in _stores_there(session, names):
        with session.console.progress(f"verifying {store.folder.name}") as bar:
            result = cache.verify(store.folder, repair=repair, progress=bar.update)
        rows += result.rows
        for damage in result.damage:
            session.console.say(str(damage))
            damaged.append(str(damage))
    if damaged and not repair:
        raise PipelineError(
            f"{len(damaged)} damaged places", "run `pipeline cache verify --repair`, then `embed` again"
        )
    session.console.show(f"{rows:,} rows read, {len(damaged)} damaged places" + (" repaired" if damaged else ""))
    return {"rows": rows, "damage": damaged, "repaired": bool(damaged) and repair}


@command("compact", example="pipeline cache compact")
@click.argument("names", nargs=-1, metavar="[STORE]...")
def compact_stores(session: Session, names: tuple[str, ...]) -> dict[str, Any]:
    """Rewrite many small shards as few large ones; a kill at any moment loses nothing."""
    import cache

    records = []
    for store in _stores_there(session, names):
        with session.console.progress(f"compacting {store.folder.name}") as bar:
            cache.compact(store.folder, progress=bar.update)
        after = next(s for s in _stores(session, ()) if s.folder == store.folder)
        session.console.show(f"{store.folder.name}: {store.shards} shards > {after.shards}, {after.rows:,} rows")
        records.append({"store": str(store.folder), "shards_before": store.shards, "shards": after.shards})
    return {"stores": records}


@command("prune", example="pipeline cache prune")
@click.option("--yes", is_flag=True, help="Delete without asking.")
def prune_stores(session: Session, yes: bool) -> dict[str, Any]:
    """Delete the stores that no run refers to; asks first."""
    import cache

    used = _runs_using(session)
    unused = [store for store in _stores(session, ()) if str(store.description["fingerprint"]) not in used]
    removed: list[Path] = []
    for store in unused:
        question = f"delete {store.folder} ({store.rows:,} rows, {_bytes(store.bytes)})?"
        if yes or click.confirm(question, err=True):
            cache.remove_store(store.folder)
            removed.append(store.folder)
    session.console.show(f"{len(removed)} stores deleted, {len(unused) - len(removed)} unused ones kept")
    return {"removed": [str(folder) for folder in removed]}


for _command in (list_stores, verify_stores, compact_stores, prune_stores):
    COMMAND.add_command(_command)
