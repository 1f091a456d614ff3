"""What runs on a GPU, or on a slice of a node's processors: a loaded backbone that computes the orders it is given.

It is the local engine's worker, loaded once, with orders instead of chunks from a lookup: the same threads tokenize
ahead and write behind, across orders, and the same writer commits shards into the same folder. A call returns when its
rows are on the disk, so that what Ray takes for done is done: an actor that is lost loses only orders that nobody was
told were finished. When orders run out the stream ends, which commits what waits; the next order begins another.
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cache.backbone.fingerprint import identity, read_content
from cache.backbone.hub import locate
from cache.backbone.registry import package_folder
from cache.cluster.reader import chunks_of
from cache.devices import lost_device
from cache.errors import CacheError
from cache.store.store import FeatureStore
from cache.workers.in_flight import Acknowledgements
from cache.workers.work_items import WorkItem
from cache.workers.worker import Job, Worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cache.progress import Tally

_IDLE_SECONDS = 0.25
_STOPPING_SECONDS = 15.0


@dataclass(frozen=True)
class Done:
    """What became of an order: how many texts were looked up for it, and what computing the missing ones took."""

    seen: int
    tally: Tally


class _Stopped(Exception):
    """No error: ends a stream early, keeping what was computed."""


class Embedder:
    """An actor, whose methods run in several threads at once and wait for the one that computes."""

    def __init__(self, job: Job, node: str) -> None:
        """Start loading the backbone."""
        self._job = job
        self._node = node
        self._orders: queue.Queue[WorkItem | None] = queue.Queue()
        self._receipts = Acknowledgements()
        self._loaded: Future[None] = Future()
        self._stopping = threading.Event()
        self._computed = 0
        self._stage = "loading"
        self._tally: Tally | None = None
        self._thread = threading.Thread(target=self._serve, name="embedder", daemon=True)
        self._thread.start()

    def ready(self) -> None:
        """Return when the backbone is loaded.

        :raises CacheError: it is not on this node, is another one than the driver's, or cannot be loaded.
        """
        self._loaded.result()

    def embed(self, number: int, table: Any, again: bool) -> Done:
        """Compute and store the texts of a block of pieces; return when they are on the disk.

        :param again: the order was given to another actor, which may have stored a part: look before computing.
        :raises CacheError: see `cache.embedding.embed_missing`.
        """
        chunks, seen = chunks_of(table, number)
        if again:
            chunks = [left for chunk in chunks if (left := self._still_missing(chunk)) is not None]
        promise = self._receipts.expect(number, sum(len(chunk.texts) for chunk in chunks))
        for chunk in chunks:
            self._orders.put(chunk)
        return Done(seen, promise.result())

    def progress(self) -> tuple[int, str]:
        """Return how many texts were computed so far, and what is going on."""
        return self._computed, self._stage

    def stop(self) -> Tally | None:
        """End, committing what was computed; return the tally of everything."""
        self._stopping.set()
        self._orders.put(None)
        self._thread.join(_STOPPING_SECONDS)
        return self._tally

    def _serve(self) -> None:
        """Run in a thread of its own, the only one that computes (torch counts threads for each thread)."""
        try:
            worker = Worker(self._found(), self._on_batch, self._receipts.written)
            worker.load()
            self._tally = worker.tally
            self._loaded.set_result(None)
            while (first := self._orders.get()) is not None:
                worker.run(self._stream(first))
                self._receipts.flushed()
                self._stage = "waiting"
        except BaseException as raised:  # told to whoever waits for an order, in the driver
            error = lost_device(raised, f"{self._job.device} of {self._node}") or raised
            if not self._loaded.done():
                self._loaded.set_exception(error)
            self._receipts.fail(error)

    def _stream(self, first: WorkItem) -> Iterator[WorkItem]:
        yield first
        while True:
            try:
                chunk = self._orders.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                return
            if chunk is None:
                self._orders.put(None)  # for `_serve`
                return
            yield chunk

    def _on_batch(self, texts: int, stage: str) -> None:
        if self._stopping.is_set():
            raise _Stopped
        self._computed += texts
        self._stage = stage

    def _still_missing(self, chunk: WorkItem) -> WorkItem | None:
        stores = [FeatureStore.open(folder) for folder, _ in self._job.stores]
        absent = np.stack([~store.contains(chunk.keys) for store in stores], axis=1)
        at = np.flatnonzero(absent.any(1))
        return replace(chunk, absent=absent).take(at) if len(at) else None

    def _found(self) -> Job:
        """Return the job with the folder of the checkpoint on this node.

        :raises CacheError: there is none, or its content is another than the driver's.
        """
        job = self._job
        try:
            folder = _folder_here(job)
            content = read_content(folder, job.backbone, job.stores[0][0].parent)
        except CacheError as error:
            raise CacheError(f"node {self._node}: {error.problem}", error.remedy) from error
        for layer, (_, description) in zip(job.layers, job.stores, strict=True):
            if identity(content, job.backbone, layer) != description["origin"]:
                raise CacheError(
                    f"node {self._node} has another {job.backbone.name} in {folder} than the driver",
                    "copy the driver's checkpoint to every node, or name one on the shared file system",
                )
        return replace(job, folder=folder)


def _folder_here(job: Job) -> Path:
    if job.folder.is_dir():
        return job.folder
    packaged = package_folder(job.backbone.package) if job.backbone.package else None
    return packaged or locate(job.backbone.source, "; or name a checkpoint folder on the shared file system")
