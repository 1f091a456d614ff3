"""`embed_missing` on a Ray cluster: the same plan, the same stores, the same report; Ray Data does the work.

Connect, plan, check that the store's folder is shared, put the stores' key indexes where every node can map them (24
bytes per stored row), and map the texts over a pool of actors (`cache.cluster.actor`), each of which commits a batch
and then acknowledges its count. What Ray Data does about a lost actor or node, trying its batches elsewhere, is all
that is needed (`benchmarks/cache/kill_node.py`); a batch that was done twice has its rows twice, of which the first
count and `cache compact` drops the others.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cache.cluster.actor import Attempts, Done, Embedder
from cache.cluster.connection import (
    Node,
    check_shared,
    connected,
    import_ray,
    living_nodes,
    on_node,
    quiet_data,
    reason_of,
)
from cache.cluster.parquet import Corpus
from cache.compute_dtype import native_dtype
from cache.devices import check_devices
from cache.embedding import report_of
from cache.errors import CacheError, file_errors
from cache.lookup import Lookup
from cache.plan import EmbedRequest, make_plan
from cache.progress import EmbedReport, Meter, Progress, Tally
from cache.store.store import FeatureStore
from cache.workers.worker import Job

MOST_TEXTS, LEAST_TEXTS = 1 << 14, 1 << 8
_BATCHES_PER_TASK = 4
_ASKING_SECONDS = 60.0


def embed_on_cluster(
    texts: Corpus | Iterable[str],
    request: EmbedRequest,
    progress: Progress | None = None,
) -> EmbedReport:
    """Compute the features of `texts` that the stores under `request.root` lack, on a Ray cluster, and store them.

    `request.root` is a folder that every node sees under the same path; `request.devices` is "auto" (every GPU, else
    an actor per node), "cpu", "cpu:N" for N actors per node, "cuda" or "all".

    :param texts: Parquet files that are read on the cluster, or texts that this process has.
    :raises CacheError: see `cache.embedding.embed_missing`; besides, no such cluster, or a node that does not share
        the folder, lacks the checkpoint or has another one.
    """
    began = time.perf_counter()
    check_devices(request.devices)
    with file_errors("create", request.root):
        request.root.mkdir(parents=True, exist_ok=True)
    request = replace(request, root=request.root.resolve())
    with connected(request.address):
        try:
            return _embed(texts, request, progress, began)
        except Exception as error:  # what Ray raises, and what it wraps what an actor raised in
            found = reason_of(error)
            if found is not error and isinstance(found, CacheError):
                raise CacheError(found.problem, found.remedy) from error
            if not isinstance(error, import_ray().exceptions.RayError):
                raise
            raise CacheError(
                f"the cluster failed: {_last_line(found)}",
                "see `ray status` and Ray's logs, then run again: what was committed is kept",
            ) from error


def _embed(
    texts: Corpus | Iterable[str],
    request: EmbedRequest,
    progress: Progress | None,
    began: float,
) -> EmbedReport:
    pool = ActorPool.of(living_nodes(), request.devices)
    plan = make_plan(request, pool.fastest)
    check_shared(request.root)
    stores = [FeatureStore.create(*store) for store in plan.stores]
    ray, data = import_ray(), quiet_data()
    if isinstance(texts, Corpus):
        total = todo = texts.rows
        source = texts.dataset(-(-todo // (_BATCHES_PER_TASK * batch_size(todo, pool.size))))
    else:
        lookup = Lookup(texts, stores, plan.prompt)
        items = list(lookup.missing())
        total, todo = lookup.texts, sum(len(item.texts) for item in items)
        if not todo:
            return report_of(plan, Tally(), total, "none", time.perf_counter() - began)
        source = data.from_arrow([_table(item.texts, item.rows) for item in items])
    texts_done, tally, nodes_of = 0, Tally(), dict[str, str]()
    meter = Meter(total, progress, lambda: total - todo + texts_done - tally.computed)
    meter.count(0, "starting")
    here = on_node(ray.get_runtime_context().get_node_id())  # elsewhere its node might be lost, and the work with it
    attempts = ray.remote(Attempts).options(num_cpus=0, scheduling_strategy=here).remote()
    job = Job(plan, todo, pool.device, pool.threads, min(pool.size, todo), pool.per_node)
    done = source.map_batches(
        Embedder,
        fn_constructor_args=(job, tuple(ray.put(store.index) for store in stores), attempts),
        batch_size=batch_size(todo, pool.size),
        batch_format="pyarrow",
        zero_copy_batch=True,
        compute=data.ActorPoolStrategy(size=min(pool.size, -(-todo // LEAST_TEXTS))),
        num_cpus=pool.cpus,
        num_gpus=pool.gpus,
    )
    for batch in done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for one in map(Done.from_json, batch["done"].to_pylist()):
            texts_done += one.texts
            tally.add(one.tally)
            if one.tally.computed:
                nodes_of[one.actor] = one.node
            meter.count(one.tally.computed, "computing")
    if texts_done != todo:
        raise CacheError(
            f"{todo - texts_done:,} of {todo:,} texts were not acknowledged",
            "see `ray status`, then run again to go on",
        )
    meter.count(0, "done")
    who = f"{_counted(len(nodes_of), 'actor')} on {_counted(len(set(nodes_of.values())), 'node')}"
    return report_of(plan, tally, total, who if nodes_of else "none", time.perf_counter() - began)


def batch_size(texts: int, actors: int) -> int:
    """Return how many texts per batch should have: so many that packing pays, so few that every actor gets several."""
    return int(np.clip(-(-texts // (8 * max(1, actors))), LEAST_TEXTS, MOST_TEXTS))


def _table(texts: Sequence[str], rows: Any) -> Any:
    import pyarrow as pa

    return pa.table({"text": pa.array(texts, pa.large_string()), "row": rows})


@dataclass(frozen=True)
class ActorPool:
    """How many actors, and what each takes: a GPU, or a share of a node's processors but one, left to reading."""

    size: int
    per_node: int
    device: str
    threads: int | None
    cpus: float
    gpus: int

    @staticmethod
    def of(nodes: Sequence[Node], devices: str) -> ActorPool:
        """Return what `devices` means on these nodes: "auto" takes GPUs where there are any, "cpu:N" N actors per node.

        :raises CacheError: a word that means nothing on a cluster, GPUs where there are none, or nothing at all.
        """
        gpus = sum(node.gpus for node in nodes)
        if "cuda:" in devices:
            raise CacheError(f"devices {devices} with --engine ray", "use cuda for every GPU of the cluster, or cpu:N")
        if devices.startswith("cuda") and not gpus:
            raise CacheError("devices cuda: the cluster has no GPU", "use cpu, or start its nodes with their GPUs")
        if gpus and not devices.startswith("cpu"):
            spare = all(node.cpus > node.gpus for node in nodes if node.gpus)
            return ActorPool(gpus, max(node.gpus for node in nodes), "cuda:0", None, 1 if spare else 0, 1)
        useful = [node.cpus for node in nodes if node.cpus]
        if not useful:
            raise CacheError("the cluster has no processor to compute on", "start its nodes with --num-cpus")
        each = sum(int(part.partition(":")[2] or 1) for part in devices.split(",")) if "cpu" in devices else 1
        left = max(0, min(useful) - 1)
        share = float(left // each) if left >= each else left / each  # Ray wants a whole number above 1
        return ActorPool(each * len(useful), each, "cpu", max(1, min(useful) // each), share, 0)

    def fastest(self) -> tuple[str, str]:
        """Ask where actors will be which dtype is multiplied natively there.

        :raises CacheError: no node that has room answers.
        """
        ray = import_ray()
        asked = ray.remote(native_dtype).options(num_cpus=0, num_gpus=self.gpus).remote(self.device)
        try:
            return f"{self.device} of the cluster", ray.get(asked, timeout=_ASKING_SECONDS)
        except ray.exceptions.RayError as error:
            raise CacheError(
                f"the cluster does not say which dtype suits it: {_last_line(reason_of(error))}",
                "name one with --dtype; see `ray status` for what keeps its nodes busy",
            ) from error


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
