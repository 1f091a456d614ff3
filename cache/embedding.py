"""A cached, resumable encode for any frozen encoder: what is stored is read, what is missing is computed, once.

The order matters for speed: keys first, weights last. A call that finds everything there hashes the texts, looks them
up and returns, without torch and without touching a gigabyte of weights. What is missing streams through one process a
device (`cache.workers.worker`), each writing its own shards, and may be interrupted at any instant.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cache.backbone.registry import DEFAULT, Backbone, resolve
from cache.devices import check_devices, choose_devices, native_dtype
from cache.errors import CacheError
from cache.lookup import Lookup, LookupPool, lookup_processes
from cache.plan import Plan, make_plan
from cache.progress import EmbeddedLayer, EmbedProgress, EmbedReport, Tally
from cache.store.hashing import text_keys
from cache.store.store import FeatureStore
from cache.workers.scheduler import run_jobs
from cache.workers.work_items import ITEM_TEXTS
from cache.workers.worker import Job

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PROGRESS_SECONDS = 0.1
_RATE_SECONDS = 0.5
Progress = Callable[[EmbedProgress], None]


def embed(
    texts: Sequence[str],
    backbone: str = DEFAULT,
    store: str | Path = "artifacts/features",
    *,
    layer: int = -1,
    dtype: str = "auto",
    device: str = "auto",
    prompt: str | None = None,
    progress: Progress | None = None,
) -> NDArray[np.generic]:
    """Return the features of `texts` [n, H] in their order, computing and storing those that `store` lacks.

    :param backbone: a name of the table, a hub id or a checkpoint folder; see `cache.resolve`.
    :param store: the folder that holds one store a backbone and layer.
    :param layer: hidden state to pool, counted from the end; -1 is after the backbone's last norm.
    :raises CacheError: see `embed_missing`.
    """
    if isinstance(texts, str):
        raise CacheError(f"texts is one string ({texts[:40]!r})", "pass a list of strings: [text]")
    found = resolve(backbone)
    prompt = found.prompt if prompt is None else prompt
    report = embed_missing(
        texts, found, Path(store), layers=(layer,), dtype=dtype, devices=device, prompt=prompt, progress=progress
    )
    return FeatureStore.open(report.stores[0].folder).gather(text_keys(texts, prompt))


def embed_missing(
    texts: Iterable[str],
    backbone: Backbone,
    root: Path,
    *,
    layers: Sequence[int] = (-1,),
    dtype: str = "auto",
    store_dtype: str | None = None,
    devices: str = "auto",
    prompt: str | None = None,
    progress: Progress | None = None,
) -> EmbedReport:
    """Compute the features of `texts` that the stores under `root` lack, and store them.

    What another process stores while this one works is not seen: both compute it, and the first row counts.

    :param texts: read once, a window at a time; may be longer than memory.
    :param layers: hidden states to pool, a store each; negative ones count from the end.
    :param dtype: "float32" or "bfloat16" to compute in; "auto" takes that of the one store there is, else the fastest.
    :param store_dtype: "float16", "float32" or "bfloat16"; by default float16 for the last layer, float32 for others.
    :param devices: "auto", "cpu", "cuda", "cuda:N", "all", "cpu:N" for N processes, or a list such as "cuda:0,cuda:2".
    :param prompt: put before every text, instead of the backbone's own.
    :raises CacheError: no such device, layer or number format; weights or tokenizer missing or damaged; several stores
        that "auto" would have to choose between; an empty text, by row; a feature that is not finite, by row.
    """
    began = time.perf_counter()
    check_devices(devices)

    def fastest() -> tuple[str, str]:
        device = choose_devices(devices)[0]
        return device, native_dtype(device)

    plan = make_plan(backbone, Path(root), layers, dtype, store_dtype, fastest)
    planned = time.perf_counter() - began  # reading and hashing a checkpoint that was never seen takes seconds
    prompt = backbone.prompt if prompt is None else prompt
    # no name for the stores: of them the lookup keeps their indexes
    lookup = Lookup(texts, [FeatureStore.create(*store) for store in plan.stores], prompt)
    meter = _Meter(lookup, len(texts) if isinstance(texts, Sized) else 0, progress)
    chunks = lookup.missing()
    first = next(chunks, None)
    tally, used = Tally(), "none"
    if first is not None:
        names = choose_devices(devices)
        used = ", ".join(dict.fromkeys(names))
        job = Job(plan.folder, backbone, plan.layers, plan.dtype, "", None, plan.stores, prompt, meter.total)
        with contextlib.ExitStack() as stack:
            if count := lookup_processes(names, meter.total):
                readers = LookupPool(count, prompt, ITEM_TEXTS["cuda"], len(names))
                chunks = lookup.missing_items(stack.enter_context(readers))
            tally = run_jobs(job, names, _chain(first, chunks), meter.count)
        tally.stages["loading"] += planned
    meter.finish()
    return report_of(plan, backbone, tally, lookup.texts, used, time.perf_counter() - began)


def report_of(plan: Plan, backbone: Backbone, tally: Tally, texts: int, device: str, seconds: float) -> EmbedReport:
    """Put together what `embed_missing` returns, whichever engine did the work."""
    return EmbedReport(
        texts=texts,
        computed=tally.computed,
        reused=texts - tally.computed,
        tokens=tally.tokens,
        nodes=tally.nodes,
        padding=tally.padding,
        seconds=seconds,
        stages=dict(tally.stages),
        dtype=plan.dtype,
        device=device,
        stores=tuple(
            EmbeddedLayer(layer, str(description["fingerprint"]), folder)
            for layer, (folder, description) in zip(plan.layers, plan.stores, strict=True)
        ),
        notes=(*backbone.notes, *plan.notes, *tally.notes),
    )


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


class _Meter:
    """Counts computed texts and tells `progress`, ten times a second at most."""

    def __init__(self, lookup: Lookup, total: int, progress: Progress | None) -> None:
        self.total = total
        self._lookup = lookup
        self._progress = progress
        self._computed = 0
        self._began: float | None = None
        self._told = 0.0

    def count(self, texts: int, stage: str) -> None:
        """Note a batch of computed texts."""
        now = time.perf_counter()
        if texts and self._began is None:
            self._began = now
        self._computed += texts
        if self._progress is not None and (now - self._told >= _PROGRESS_SECONDS or not texts):
            self._told = now
            self._tell(stage)

    def finish(self) -> None:
        """Tell that everything is done."""
        if self._progress is not None:
            self._tell("done")

    def _tell(self, stage: str) -> None:
        assert self._progress is not None
        since = time.perf_counter() - self._began if self._began is not None else 0.0
        rate = self._computed / since if since >= _RATE_SECONDS else 0.0  # the first batch alone tells no rate
        self._progress(EmbedProgress(self._lookup.reused + self._computed, self.total, rate, stage))
