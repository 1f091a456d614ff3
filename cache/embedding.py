"""A cached, resumable encode for any frozen encoder: what is stored is read, what is missing is computed, once.

The order matters for speed: keys first, weights last. A call that finds everything there hashes the texts, looks them
up and returns, without torch and without touching a gigabyte of weights. What is missing streams through one process
per device (`cache.workers.worker`), each writing its own shards, and may be interrupted at any instant.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterable, Mapping, Sized
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.backbone.registry import DEFAULT
from cache.compute_dtype import fastest
from cache.devices import check_devices, choose_devices
from cache.endpoint import embed_from_endpoint
from cache.errors import CacheError
from cache.lookup import Lookup, lookup_pool, lookup_processes
from cache.plan import EmbedRequest, Plan, make_plan
from cache.progress import EmbeddedLayer, EmbedReport, Meter, Progress, Tally
from cache.store.hashing import text_keys
from cache.store.store import FeatureStore
from cache.workers.embed_processes import compute
from cache.workers.work_items import ITEM_TEXTS
from cache.workers.worker import Job


def embed(
    texts: Iterable[str],
    backbone: str | Path = DEFAULT,
    store: str | Path = "artifacts/features",
    *,
    layer: int = -1,
    dtype: str = "auto",
    device: Any = "auto",
    prompt: str | None = None,
    progress: Progress | None = None,
) -> NDArray[np.generic]:
    """Return the features of `texts` [n, H] in their order, computing and storing those that `store` lacks.

    :param backbone: a name of the table, a hub id or a checkpoint folder; see `cache.resolve`.
    :param store: the folder that holds one store per backbone and layer.
    :param layer: hidden state to pool, counted from the end; -1 is after the backbone's last norm.
    :param device: see `EmbedRequest.devices`; a `torch.device` too.
    :raises CacheError: see `embed_missing`.
    """
    texts = list(_column(texts))  # a generator can be read once: its texts are needed for their keys too
    request = EmbedRequest(backbone, Path(store), (layer,), dtype, None, str(device), prompt)
    report = embed_missing(texts, request, progress)
    keys = text_keys(texts, request.resolved.prompt if prompt is None else prompt)
    return FeatureStore.open(report.stores[0].folder).gather(keys)


def _column(texts: Any) -> Iterable[str]:
    """Return `texts` if it is something that gives texts one by one."""
    if isinstance(texts, str | bytes | bytearray):
        raise CacheError(f"texts is one string ({texts[:40]!r})", "pass a list of strings: [text]")
    if isinstance(texts, Mapping | set | frozenset) or (hasattr(texts, "columns") and not callable(texts.columns)):
        raise CacheError(
            f"texts is a {type(texts).__name__}, not one column of texts in order", "pass that column: frame['text']"
        )
    try:
        iter(texts)
    except TypeError as error:
        raise CacheError(f"texts is {type(texts).__name__}, not a list of strings", "pass a list: [text]") from error
    found: Iterable[str] = texts
    return found


def embed_missing(texts: Iterable[str], request: EmbedRequest, progress: Progress | None = None) -> EmbedReport:
    """Compute the features of `texts` that the stores under `request.root` lack, and store them.

    What another process stores while this one works is not seen: both compute it, and the first row counts.

    :param texts: read once, some thousands at a time; may be longer than memory.
    :raises CacheError: an engine other than "local"; no such device, layer or number format; weights or tokenizer
        missing or damaged; several stores that "auto" would have to choose between; an empty text, by row; a feature
        that is not finite, by row.
    """
    began = time.perf_counter()
    texts = _column(texts)
    if request.engine != "local":
        raise CacheError(f"engine {request.engine!r}", "use cache.cluster.embed_on_cluster, or engine='local'")
    total = len(texts) if isinstance(texts, Sized) else 0
    if request.resolved.endpoint is not None:
        return embed_from_endpoint(texts, request, total=total, progress=progress)
    check_devices(request.devices)
    plan = make_plan(request, partial(fastest, request.devices))
    planned = time.perf_counter() - began  # reading and hashing a checkpoint that was never seen takes seconds
    # no name for the stores: of them the lookup keeps their indexes
    lookup = Lookup(texts, [FeatureStore.create(*store) for store in plan.stores], plan.prompt)
    meter = Meter(total, progress, lambda: lookup.reused)
    tally, used = Tally(), "none"
    items = lookup.missing()
    first = next(items, None)
    if first is not None:
        names = choose_devices(request.devices)
        used = ", ".join(dict.fromkeys(names))
        with contextlib.ExitStack() as stack:
            if count := lookup_processes(names, total):
                pool = lookup_pool(count, plan.prompt, ITEM_TEXTS["cuda"], len(names))
                items = lookup.missing_items(stack.enter_context(pool))
            tally = compute(Job(plan, total), names, itertools.chain([first], items), meter.count)
        tally.stages["loading"] += planned
    meter.count(0, "done")
    return report_of(plan, tally, lookup.texts, used, time.perf_counter() - began)


def report_of(plan: Plan, tally: Tally, texts: int, device: str, seconds: float) -> EmbedReport:
    """Put together what `embed_missing` returns, whichever engine did the work."""
    return EmbedReport(
        texts=texts,
        computed=tally.computed,
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
        notes=(*plan.backbone.notes, *plan.notes, *tally.notes),
    )
