"""`pipeline cache`: the stored features, and which of them no run uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich import box
from rich.table import Table

from pipeline.terminal.command import Session, command

if TYPE_CHECKING:
    from pipeline.workspace.runs import Unreadable


def _stores(session: Session, names: tuple[str, ...] = (), *, needed: bool = False) -> list[Any]:
    """The stores there, or those named; `needed`: of a mistyped folder nothing would be read, and all be well."""
    import cache
    from pipeline.errors import PipelineError
    from pipeline.workspace.records import refuse_link_to_nothing

    root, features = session.artifacts.root, session.artifacts.features
    if needed and not root.is_dir():
        raise PipelineError(f"there is no folder {root}", "check --artifacts (or PIPELINE_ARTIFACTS)")
    refuse_link_to_nothing(features)
    stores = cache.store.find_stores(features)
    known = {name: store for store in stores for name in (store.folder.name, str(store.folder.resolve()))}
    wanted = [str(Path(name).resolve()) if Path(name).is_dir() else name for name in names]
    if unknown := [name for name in wanted if name not in known]:
        raise PipelineError(
            f"no store named {', '.join(sorted(unknown))} in {features}", "see `pipeline cache list` for the names"
        )
    if needed and not stores:
        raise PipelineError(
            f"there are no features in {features}", "run `pipeline embed DATASET`, or check --artifacts"
        )
    return [store for store in stores if not names or store in [known[name] for name in wanted]]


def _bytes(n: int) -> str:
    return f"{n / 1e9:,.2f} GB" if n >= 1e9 else f"{n / 1e6:,.1f} MB"


@dataclass(frozen=True)
class _Use:
    """How many runs refer to a fingerprint, and what may refer to one: runs below `runs` that cannot be read."""

    counts: Counter[str]
    unreadable: list[Unreadable]

    def why_kept(self, description: Mapping[str, Any]) -> str | None:
        """Why a store must not be deleted, in a few words; None if no run can refer to it."""
        if runs := self.counts[str(description["fingerprint"])]:
            return f"{runs} runs"
        if description["fingerprint"] == "unknown":
            return "it is damaged, so that the runs on it are not known; `pipeline cache verify --repair` may help"
        maybe = [u for u in self.unreadable if u.backbone in (None, description["backbone"])]
        return f"{maybe[0].path}, which cannot be read, may refer to it" if maybe else None


def _runs_using(session: Session) -> _Use:
    from pipeline.workspace.runs import scan

    runs, unreadable = scan(session.artifacts.runs)
    for place in unreadable:
        session.console.say(str(place.error))
    return _Use(Counter(str(run.record["fingerprint"]) for run in runs), unreadable)


@command("list", example="pipeline cache list")
def list_stores(session: Session) -> dict[str, Any]:
    """Stores with their rows, bytes, last use, and how many runs refer to them."""
    used = _runs_using(session)
    table = Table(box=box.SIMPLE_HEAD, padding=0)
    for column in ("store", "layer", "computed\n> stored", "rows", "bytes", "shards", "runs", "last used"):
        figure = column in ("layer", "rows", "bytes", "shards", "runs")
        table.add_column(column, justify="right" if figure else "left", no_wrap=column != "store", overflow="fold")
    records = []
    for store in _stores(session):
        d = store.description
        runs = used.counts[str(d["fingerprint"])]
        dtypes = f"{d.get('compute_dtype', '?')}\n> {d['store_dtype']}"
        last_used = store.last_used.isoformat(sep=" ", timespec="minutes") if store.last_used else "never"
        day = last_used.partition(" ")[0]
        table.add_row(
            store.folder.name, str(d["layer"]), dtypes, "damaged" if store.damage else f"{store.rows:,}",
            _bytes(store.bytes), str(store.shards), str(runs), day,
        )  # fmt: skip
        if store.damage:
            session.console.say(store.damage)
        records.append(
            {
                "store": str(store.folder),
                "backbone": d["backbone"],
                "fingerprint": d["fingerprint"],
                "layer": d["layer"],
                "compute_dtype": d.get("compute_dtype"),
                "dtype": d["store_dtype"],
                "rows": store.rows,
                "damage": store.damage,
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
    for store in _stores(session, names, needed=True):
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
    for store in _stores(session, names, needed=True):
        with session.console.progress(f"compacting {store.folder.name}") as bar:
            cache.store.compact(store.folder, progress=bar.update)
        after = next(s for s in _stores(session) if s.folder == store.folder)
        session.console.show(f"{store.folder.name}: {store.shards} shards > {after.shards}, {after.rows:,} rows")
        records.append({"store": str(store.folder), "shards_before": store.shards, "shards": after.shards})
    return {"stores": records}


@command("prune", example="pipeline cache prune")
@click.option("--yes", is_flag=True, help="Delete without asking.")
def prune_stores(session: Session, yes: bool) -> dict[str, Any]:
    """Delete the stores that no run refers to; asks first."""
    import cache

    used = _runs_using(session)
    unused: list[Any] = []
    removed: list[Path] = []
    for store in _stores(session):
        why = used.why_kept(store.description)
        if why is None:
            unused.append(store)
        elif not used.counts[str(store.description["fingerprint"])]:
            session.console.say(f"{store.folder} is kept: {why}")
    for store in unused:
        question = f"delete {store.folder} ({store.rows:,} rows, {_bytes(store.bytes)})?"
        if yes or click.confirm(question, err=True):
            cache.store.remove_store(store.folder)
            removed.append(store.folder)
    session.console.show(f"{len(removed)} stores deleted, {len(unused) - len(removed)} unused ones kept")
    return {"removed": [str(folder) for folder in removed]}


COMMAND = click.Group(
    "cache", commands=[list_stores, verify_stores, compact_stores, prune_stores], help="Look after stored features."
)
