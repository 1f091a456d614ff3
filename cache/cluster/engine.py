"""`embed_missing` on a Ray cluster: the same plan, the same stores, the same report; others do the work.

The order of things: connect, plan, check that the store's folder is shared, put the stores' key indexes where every
node can map them, read and look up, compute what is missing, and count. If every text was looked up and every block was
acknowledged, all is stored, for an actor acknowledges what is on the disk; if a block was lost beyond Ray's own repair,
another pass looks up everything again and finds only what is missing. The alternative, always a second pass to be sure,
reads a corpus twice to learn what the count has said.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cache.cluster.connection import (
    Place,
    check_shared,
    connected,
    import_ray,
    living_nodes,
    on_node,
    places,
    reason_of,
    settled,
    spare,
)
from cache.cluster.parquet import Corpus
from cache.cluster.reader import Distinct, Feed, piece_size, pieces
from cache.cluster.scheduler import Outcome, Scheduler
from cache.devices import check_devices, native_dtype
from cache.embedding import report_of
from cache.errors import CacheError, file_error
from cache.plan import make_plan
from cache.progress import EmbedProgress, Tally
from cache.store.description import DESCRIPTION_FILE, read_description
from cache.store.dtypes import ENCODINGS
from cache.store.shard import list_shards
from cache.store.store import FeatureStore
from cache.workers.worker import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cache.backbone.registry import Backbone
    from cache.plan import Plan
    from cache.progress import EmbedReport

_PASSES = 3
_BLOCKS_AHEAD = 2
_ASKING_SECONDS = 60.0
_PROGRESS_SECONDS = 0.1
_RATE_SECONDS = 0.5


def embed_on_cluster(
    texts: Corpus | Sequence[str],
    backbone: Backbone,
    root: Path,
    *,
    layers: Sequence[int] = (-1,),
    dtype: str = "auto",
    store_dtype: str | None = None,
    devices: str = "auto",
    prompt: str | None = None,
    address: str | None = None,
    progress: Callable[[EmbedProgress], None] | None = None,
) -> EmbedReport:
    """Compute the features of `texts` that the stores under `root` lack, on a Ray cluster, and store them.

    :param texts: Parquet files that are read on the cluster, or texts that this process has.
    :param root: a folder that every node sees under the same path.
    :param devices: "auto" (every GPU, else an actor a node), "cpu", "cpu:N" for N actors a node, "cuda" or "all".
    :param address: of a running cluster; by default RAY_ADDRESS, else one is started on this machine and ended.
    :raises CacheError: see `cache.embedding.embed_missing`; besides, no such cluster, or a node that does not share
        `root`, lacks the checkpoint or has another one.
    """
    began = time.perf_counter()
    check_devices(devices)
    prompt = backbone.prompt if prompt is None else prompt
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise file_error("create", root, error) from error
    root = root.resolve()
    with connected(address, object_bytes=_index_bytes(root)):
        devices = settled(living_nodes(), devices)
        plan = make_plan(backbone, root, layers, dtype, store_dtype, lambda: _fastest(devices))
        work = _Work(texts, plan, backbone, prompt, devices, progress)
        try:
            return work.report(began)
        except import_ray().exceptions.RayError as error:
            raise CacheError(
                f"the cluster failed: {_last_line(reason_of(error))}",
                "see `ray status` and Ray's logs, then run again: what was committed is kept",
            ) from error


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]


def _index_bytes(root: Path) -> int:
    """Return how much room the key indexes of the stores under `root` take, about: 24 bytes a row."""
    total = 0
    for path in root.glob(f"*/{DESCRIPTION_FILE}"):
        with contextlib.suppress(OSError, CacheError):
            description = read_description(path.parent)
            row = int(description["hidden_size"]) * ENCODINGS[str(description["store_dtype"])].stored.itemsize + 24
            total += sum(shard.stat().st_size for shard in list_shards(path.parent)) * 24 // row
    return total


def _fastest(devices: str) -> tuple[str, str]:
    """Ask a node that will compute which dtype it multiplies natively.

    :raises CacheError: the cluster has nothing to compute on, or the node cannot run this package.
    """
    ray = import_ray()
    place = _first_place(devices)
    options = {"num_cpus": 0, "num_gpus": place.gpus, "scheduling_strategy": on_node(place.node)}
    asked = ray.remote(native_dtype).options(**options).remote(place.device)
    try:
        return f"{place.device} of {place.node.name}", ray.get(asked, timeout=_ASKING_SECONDS)
    except ray.exceptions.RayError as error:
        raise CacheError(
            f"node {place.node.name} does not say which dtype suits it: {_last_line(reason_of(error))}",
            "name one with --dtype; see `ray status` for what keeps the node busy",
        ) from error


def _first_place(devices: str) -> Place:
    found = places(living_nodes(), devices)
    if not found:
        raise CacheError("the cluster has no processor to compute on", "start its nodes with --num-cpus")
    return found[0]


class _Work:
    """One call's passes over the texts, and what it tells meanwhile."""

    def __init__(
        self,
        texts: Corpus | Sequence[str],
        plan: Plan,
        backbone: Backbone,
        prompt: str,
        devices: str,
        progress: Callable[[EmbedProgress], None] | None,
    ) -> None:
        self._plan, self._backbone, self._prompt, self._devices = plan, backbone, prompt, devices
        self._progress = progress
        self._told = self._began = 0.0
        self._base = 0
        if isinstance(texts, Corpus):
            self._texts: Corpus | Distinct = texts
            self._distinct = self._total = texts.rows
        else:
            self._texts = Distinct.of(texts)
            self._distinct, self._total = len(self._texts.texts), len(texts)

    def report(self, began: float) -> EmbedReport:
        """Do the work."""
        check_shared(self._plan.stores[0][0].parent)
        stores = [FeatureStore.create(folder, description) for folder, description in self._plan.stores]
        nodes = living_nodes()
        actors, readers = len(places(nodes, self._devices)), spare(nodes, self._devices)
        size = piece_size(self._distinct, actors)
        plan, job = self._plan, self._job()
        tally = Tally()
        with Scheduler(job, self._devices, -(-self._distinct // size), self._tell) as dealer:
            for _ in range(_PASSES):
                outcome = self._pass(dealer, stores, size, actors, readers)
                tally.add(outcome.tally)
                if outcome.whole and outcome.seen == self._distinct:
                    break
                for store in stores:
                    store.refresh()
            else:
                raise CacheError(
                    f"blocks of texts were lost in {_PASSES} passes over them",
                    "nodes come and go too fast: see `ray status`, then run again to go on",
                )
        tally.add(dealer.tally)
        tally.notes = (*tally.notes, *dealer.notes)
        self._tell(self._distinct, 0, "done")
        return report_of(plan, self._backbone, tally, self._total, dealer.description, time.perf_counter() - began)

    def _pass(self, dealer: Scheduler, stores: Sequence[FeatureStore], size: int, actors: int, readers: int) -> Outcome:
        feed = Feed(pieces(self._texts, stores, self._prompt, size, readers), _BLOCKS_AHEAD * max(1, actors))
        try:
            return dealer.run(feed, expecting=not all(len(store) for store in stores))
        finally:
            feed.close()

    def _job(self) -> Job:
        plan = self._plan
        return Job(
            plan.folder, self._backbone, plan.layers, plan.dtype, "", None, plan.stores, self._prompt, self._distinct
        )

    def _tell(self, done: int, underway: int, stage: str) -> None:
        if self._progress is None:
            return
        now = time.perf_counter()
        if now - self._told < _PROGRESS_SECONDS and stage != "done":
            return
        self._told = now
        if underway and not self._began:
            self._began, self._base = now, done + underway
        since = now - self._began if self._began else 0.0
        rate = (done + underway - self._base) / since if since >= _RATE_SECONDS else 0.0
        shown = min(self._total, done + underway + self._total - self._distinct)
        self._progress(EmbedProgress(shown, self._total, max(0.0, rate), stage))
