"""Work items over devices: computed here with one device, else by a process per device, each writing its own shards.

A process computes items while earlier ones wait to be committed, and acknowledges an item when its rows are in shards
(`cache.workers.work_items`). Of what a failed process held, the store says what it had committed; the scheduler gives
the rest to the others. The texts of the batches that it had in hand are the suspects: they come last and in small
items, so that the next failure tells which text it was.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.batching.packing import Batch
from cache.devices import lost_device, threads_each
from cache.progress import Tally
from cache.store.index import KeyIndex
from cache.store.store import FeatureStore
from cache.workers.background import Prefetcher
from cache.workers.process_pool import Channel, Finished, ProcessFailed, Request
from cache.workers.scheduler import Acknowledged, Scheduler
from cache.workers.work_items import ITEM_TEXTS, ITEMS_READY, WorkItem, split_items
from cache.workers.worker import Job, Worker, short_turns

_SUSPECT_PARTS = 32
_IDLE_SECONDS = 0.25
_BATCHES_IN_HAND = {"cpu": 1, "cuda": 8}  # kernels are launched ahead of what they compute


def compute(job: Job, devices: Sequence[str], items: Iterable[WorkItem], on_batch: Callable[[int, str], None]) -> Tally:
    """Compute and store `items` on `devices`; `on_batch(texts, stage)` is called after each batch.

    :raises CacheError: what a process raises; that every process failed; that some texts cost several of them.
    """
    if len(devices) == 1:
        return _compute_here(replace(job, device=devices[0]), items, on_batch)
    kind = devices[0].partition(":")[0]
    scheduler = _EmbedScheduler(
        job, kind, Prefetcher(split_items(items, ITEM_TEXTS[kind], len(devices)), ITEMS_READY), on_batch
    )

    def arguments(device: str, processes: int) -> tuple[Job]:
        return (replace(job, device=device, threads=threads_each(processes), share=processes),)

    with short_turns():  # texts are looked up in another thread, which would keep this one from messages for 5 ms
        scheduler.run(_serve, devices, arguments)
    scheduler.tally.notes = (*scheduler.tally.notes, *scheduler.notes)
    return scheduler.tally


def _compute_here(job: Job, items: Iterable[WorkItem], on_batch: Callable[[int, str], None]) -> Tally:
    worker = Worker(job, on_batch)
    try:
        worker.run(items)
    except Exception as error:
        lost = lost_device(error, job.device)
        if lost is None or lost is error:
            raise
        raise lost from error
    return worker.tally


@dataclass(frozen=True)
class Started:
    """A batch goes to the device: the rows of its texts."""

    rows: NDArray[np.integer]


@dataclass(frozen=True)
class Progress:
    """So many texts were computed, or a stage begins."""

    texts: int
    stage: str


def _serve(channel: Channel, job: Job) -> Tally:
    """Compute items until no more come."""

    def start(part: WorkItem, batch: Batch) -> None:
        rows = part.rows.astype(np.min_scalar_type(part.rows.max()))  # a full pipe would keep the device waiting
        channel.send(Started(rows))

    worker = Worker(
        job,
        lambda texts, stage: channel.send(Progress(texts, stage)),
        on_start=start,
        acknowledge=lambda number, tally: channel.send(Acknowledged(number, tally)),
    )
    worker.run(_items(channel))
    return worker.tally


def _items(channel: Channel) -> Iterator[WorkItem | None]:
    """Yield what the scheduler sends; None whenever it sends nothing for a moment."""
    while True:
        channel.send(Request())
        while not channel.poll(_IDLE_SECONDS):
            yield None
        task = channel.receive()
        if task is None:
            return
        number, item = task
        yield replace(item, number=number)


class _EmbedScheduler(Scheduler[WorkItem]):
    """Counts what processes compute, keeps which texts each has in hand, and asks the stores what a failed one left."""

    def __init__(self, job: Job, kind: str, items: Iterable[WorkItem], on_batch: Callable[[int, str], None]) -> None:
        super().__init__(items, _rows_in_words)
        self.tally = Tally()
        self._job, self._on_batch = job, on_batch
        self._computed: Counter[int] = Counter()  # by process, as far as it is not acknowledged
        self._in_hand: dict[int, deque[NDArray[np.integer]]] = defaultdict(
            partial(deque[Any], maxlen=_BATCHES_IN_HAND[kind])
        )
        self._stored: list[KeyIndex] = []

    def received(self, worker: int, message: Any) -> None:
        if isinstance(message, Started):
            self._in_hand[worker].append(message.rows)
        elif isinstance(message, Progress):
            self._computed[worker] += message.texts
            self._on_batch(message.texts, message.stage)
            if message.texts and self._in_hand[worker].maxlen == 1:
                self._in_hand[worker].clear()

    def acknowledged(self, worker: int, item: WorkItem, result: Tally) -> None:
        self.tally.add(result)
        self._computed[worker] -= result.computed

    def finished(self, result: Tally) -> None:
        self.tally.add(Tally(stages=result.stages, notes=result.notes))

    def failed(self, worker: int, message: ProcessFailed | Finished) -> None:
        self._stored = [FeatureStore.open(folder).index for folder, _ in self._job.plan.stores]
        self._on_batch(-self._computed.pop(worker, 0), "computing")
        super().failed(worker, message)

    def remaining(self, worker: int, item: WorkItem) -> Iterator[tuple[WorkItem, bool]]:
        absent = item.absent & np.stack([index.find(item.keys) < 0 for index in self._stored], axis=1)
        left = replace(item, absent=absent).take(np.flatnonzero(absent.any(axis=1)))
        stored = len(item.texts) - len(left.texts)
        self._on_batch(stored, "computing")
        self.tally.add(_in_proportion(self.tally, stored))
        suspect = np.isin(left.rows, np.concatenate([np.empty(0, np.int64), *self._in_hand[worker]]))
        if not suspect.all():
            yield left.take(np.flatnonzero(~suspect)), False
        for part in np.array_split(np.flatnonzero(suspect), min(_SUSPECT_PARTS, int(suspect.sum()) or 1)):
            if len(part):
                yield left.take(part), True

    def amount(self, items: Sequence[WorkItem]) -> str:
        return f"{sum(len(item.texts) for item in items):,} texts that it had not stored were"


def _rows_in_words(items: Sequence[WorkItem]) -> str:
    """Return "text 17" or "texts 17, 20 and 5 more"."""
    numbers = sorted({int(row) for item in items for row in item.rows})
    more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
    return f"text{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers[:5]))}{more}"


def _in_proportion(tally: Tally, texts: int) -> Tally:
    """Return the tally of so many texts: exact for texts, for the rest what those acknowledged took on average."""
    share = texts / tally.computed if tally.computed else 0.0
    return Tally(texts, round(share * tally.tokens), round(share * tally.nodes), round(share * tally.padding))
