"""One process's share: texts in, features in the stores, with nothing waiting for anything.

Threads overlap: texts are tokenized and packed in advance, the caller's thread keeps the device busy, features are
fetched, checked and appended in the background.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cache.batching.ragged import Sequences
from cache.batching.tokenizer import TextTokenizer
from cache.devices import current
from cache.errors import CacheError, DeviceError
from cache.progress import Tally
from cache.store.dtypes import ENCODINGS
from cache.store.writer import ShardWriter
from cache.workers.background import BackgroundWriter, Prefetcher
from cache.workers.tokenizer_pool import tokenizer_pool, tokenizer_share
from cache.workers.work_items import ITEM_TEXTS, InFlight, WorkItem, split_items

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cache.batching.packing import Batch, Packing
    from cache.model.encoder import Encoder, Fetched
    from cache.plan import Plan
    from cache.workers.helper_processes import HelperProcesses

_WRITES_WAITING = 4
_BATCHES_WAITING = 8
_POOL_TEXTS = 50_000
_POOL_DEVICES = ("cuda",)  # so fast that tokenizing in the process that feeds them would hold them up
_SWITCH_SECONDS = 2e-4


@dataclass(frozen=True)
class Job:
    """What a process needs to know; can be sent to another.

    `total` texts are expected in all (0: unknown), of which this process, one of `share`, gets its part; so many of
    these processes as `on_host` says divide this host's cores (0: all of them).
    """

    plan: Plan
    total: int
    device: str = ""
    threads: int | None = None
    share: int = 1
    on_host: int = 0


OnStart = Callable[[WorkItem, "Batch"], None]
# a batch on its way: its texts in order, itself, and what waits for the device and returns its features
ComputedBatch = tuple[WorkItem, "Batch", "Callable[[], Fetched]"]


class Worker:
    """What the threads share: the encoder, and the tally, of which each thread adds to its own stages.

    The encoder is loaded once, while the first texts are tokenized, or beforehand by `load`; `run` may be called again.
    """

    def __init__(
        self,
        job: Job,
        on_batch: Callable[[int, str], None],
        on_start: OnStart = lambda part, batch: None,
        acknowledge: Callable[[int, Tally], None] | None = None,
    ) -> None:
        """Load nothing yet.

        :param on_batch: called with a number of texts and a stage, after each batch and when a stage begins.
        :param on_start: called before a batch, the texts `part` of an item, is computed.
        :param acknowledge: called from the writing thread with an item's number when all its rows are on the disk.
        """
        self.tally = Tally()
        self._job = job
        self._on_batch, self._on_start = on_batch, on_start
        self._in_flight = InFlight(acknowledge) if acknowledge else None
        self._arrived = 0
        self._writing: BackgroundWriter[ComputedBatch | None] | None = None
        self._encoder: Encoder | None = None
        self._tokenizer: TextTokenizer | None = None
        self._packing: Packing | None = None
        self._store_dtypes = [str(description["store_dtype"]) for _, description in job.plan.stores]

    def load(self) -> Encoder:
        """Return the encoder, loading it unless it is loaded: in the thread that computes, whose threads are counted.

        :raises CacheError: weights that are damaged, a device without room for them.
        """
        if self._encoder is None:
            self._on_batch(0, "loading")
            with self._timed("loading"):
                self._encoder = _load(self._job)
        return self._encoder

    def run(self, items: Iterable[WorkItem | None]) -> None:
        """Compute and store every text of `items`: when it returns, all of them are on the disk.

        :param items: None among them says that none comes for a while: what is computed is committed then.
        :raises CacheError: see `cache.embedding.embed_missing`; what was computed before is stored.
        """
        arriving = self._arriving(items)
        with contextlib.ExitStack() as stack:
            stack.enter_context(short_turns())
            pool = None
            if self._job.device.startswith(_POOL_DEVICES) and self._expected() >= _POOL_TEXTS:
                count, threads = tokenizer_share(self._job.on_host or self._job.share)
                pool = stack.enter_context(tokenizer_pool(self._job.plan, count, threads)) if count else None
            tokenized = Prefetcher(self._tokenize(itertools.islice(arriving, 1), pool), 1)
            with self._timed("loading"):
                stack.enter_context(current(self._job.device))
            encoder = self.load()
            with self._timed("loading"):
                first = next(tokenized, None)  # as soon as a tokenizer is loaded too
            if first is None:
                return
            rest = self._start(encoder, first, arriving, pool)
            ready = itertools.chain(self._packed(encoder, [first]), rest)
            batches = stack.enter_context(contextlib.closing(Prefetcher(ready, _BATCHES_WAITING)))
            writing = BackgroundWriter[ComputedBatch | None](self._write, _WRITES_WAITING)
            self._writing = stack.enter_context(writing)
            for part, batch in batches:
                with self._timed("computing"):
                    self._compute(encoder, part, batch, writing)
            with self._timed("computing"):
                encoder.wait()
            self._on_batch(0, "writing")
        self._writing = None
        self.tally.notes = encoder.notes

    def _arriving(self, items: Iterable[WorkItem | None]) -> Iterator[WorkItem]:
        """Note what arrives, and have rows committed where nothing does and all that came is computed."""
        waiting = False
        for item in items:
            if item is not None:
                self._arrived += len(item.texts)
                if self._in_flight:
                    self._in_flight.add(item)
                waiting = True
                yield item
            elif waiting and self._writing is not None and self.tally.computed == self._arrived:
                self._writing.put(None)
                waiting = False

    @contextlib.contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.tally.stages[stage] += time.perf_counter() - began

    def _tokenize(
        self, items: Iterable[WorkItem], pool: HelperProcesses | None
    ) -> Iterator[tuple[WorkItem, Sequences]]:
        """Tokenize here or in the pool: loading a tokenizer holds Python's lock while weights are read."""
        plan = self._job.plan
        encode: Callable[[Sequence[str]], Sequences]
        if pool is None:
            self._tokenizer = self._tokenizer or TextTokenizer(plan.folder, plan.backbone, plan.prompt)
            encode = self._tokenizer.encode
        else:
            encode = lambda texts: pool.call((texts, None))  # noqa: E731
        for item in items:
            with self._timed("tokenizing"):
                sequences = encode(item.texts)
            yield item, sequences

    def _expected(self) -> float:
        """Return how many texts this process will get, about; an unknown number counts as many."""
        return self._job.total / self._job.share if self._job.total else float("inf")

    def _start(
        self,
        encoder: Encoder,
        first: tuple[WorkItem, Sequences],
        rest: Iterator[WorkItem],
        pool: HelperProcesses | None,
    ) -> Iterator[tuple[WorkItem, Batch]]:
        """Have the rest prepared, and compile meanwhile if the first texts say that the tokens to come are worth it."""
        item, sequences = first
        tokens = float(sequences.lengths.mean()) * max(self._expected(), len(item.texts))
        compiling = encoder.worth_compiling(tokens)
        if pool is None:
            batches = self._packed(encoder, Prefetcher(self._tokenize(rest, None), 1))
        else:
            self._packing = replace(encoder.packing, laid_out=compiling or encoder.packing.laid_out)
            items = split_items(rest, ITEM_TEXTS["cuda"])
            batches = self._prepared(encoder, pool.map(items, lambda item: (item.texts, self._packing)))
        if compiling:
            self._on_batch(0, "compiling")
            with self._timed("compiling"):
                encoder.compile(sequences)
        return batches

    def _prepared(
        self, encoder: Encoder, items: Iterator[tuple[WorkItem, tuple[list[Batch], float]]]
    ) -> Iterator[tuple[WorkItem, Batch]]:
        """Yield the batches of the pool and their texts; items that are sent later are packed as is wanted by then."""
        self._packing = encoder.packing
        for item, (batches, seconds) in items:
            self.tally.stages["tokenizing"] += seconds
            self._packing = encoder.packing
            yield from ((item.take(batch.rows), batch) for batch in batches)

    def _packed(
        self, encoder: Encoder, tokenized: Iterable[tuple[WorkItem, Sequences]]
    ) -> Iterator[tuple[WorkItem, Batch]]:
        for item, sequences in tokenized:
            began = time.perf_counter()
            for batch in encoder.packing.batches(sequences):
                self.tally.stages["tokenizing"] += time.perf_counter() - began
                yield item.take(batch.rows), batch
                began = time.perf_counter()

    def _compute(
        self, encoder: Encoder, part: WorkItem, batch: Batch, writing: BackgroundWriter[ComputedBatch | None]
    ) -> None:
        """Compute a batch, in smaller ones where the device's memory does not suffice."""
        if not batch.lengths.all():
            raise CacheError(
                f"{part.name(int(np.argmin(batch.lengths)))} has no tokens", "remove that text, or give it content"
            )
        self._on_start(part, batch)
        features = encoder.features_or_none(batch)
        if features is None:
            if len(part.texts) == 1:
                raise DeviceError(
                    f"{part.name(0)} with {batch.tokens} tokens does not fit in the memory of {self._job.device}",
                    "use --devices cpu, or a backbone with a smaller maximum length",
                )
            encoder.shrink(len(batch.ids))
            parts = list(encoder.packing.batches(batch.sequences()))
            if len(parts) == 1:  # the smallest batch there is does not fit: perhaps one text does
                parts = list(replace(encoder.packing, budget=1).batches(batch.sequences()))
            for smaller in parts:
                self._compute(encoder, part.take(smaller.rows), smaller, writing)
            return
        writing.put((part, batch, encoder.fetch(features, self._store_dtypes)))
        self.tally.computed += len(batch.rows)
        self.tally.tokens += batch.tokens
        self.tally.nodes += batch.nodes
        self.tally.padding += batch.padding
        self._on_batch(len(batch.rows), "computing")

    def _write(self, computed: Iterator[ComputedBatch | None]) -> None:
        """Append features to each layer's store until there are no more, and commit at each None: no more come soon."""
        with contextlib.ExitStack() as stack:
            # the stores are there, and a writer needs no index of what they hold: opening them would read every key
            writers = [stack.enter_context(ShardWriter(*store)) for store in self._job.plan.stores]
            for one in computed:
                if one is None:
                    for writer in writers:
                        writer.flush()
                    if self._in_flight:
                        self._in_flight.committed(writers)
                    continue
                part, batch, arrived = one
                fetched = arrived()
                with self._timed("writing"):
                    self._check(part, batch, fetched)
                    for writer, features, absent in zip(writers, fetched.features, part.absent.T, strict=True):
                        if absent.all():
                            writer.append(part.keys, features)
                        else:
                            writer.append(part.keys[absent], features[absent])
                if self._in_flight:
                    self._in_flight.handed_over(part, batch, writers)
        if self._in_flight:
            self._in_flight.committed(writers)

    def _check(self, part: WorkItem, batch: Batch, fetched: Fetched) -> None:
        """Compute what is not finite again, each text alone: in a batch a text's NaN reaches others by 0 * NaN."""
        limits = [ENCODINGS[name].largest for name in self._store_dtypes]
        bad = ~(fetched.largest <= np.array(limits)[:, None]).all(axis=0)
        for i in np.flatnonzero(bad).tolist():
            again = self.load().alone(batch, i)
            largest = np.abs(again).max(axis=1).tolist()
            for number, (value, limit) in enumerate(zip(largest, limits, strict=True)):
                if not value <= limit:
                    layer, kind = self._job.plan.layers[number], self._store_dtypes[number]
                    what = f"{part.name(i)} ({part.texts[i][:40]!r}): its feature of layer {layer} holds {value}"
                    if np.isfinite(value):
                        raise CacheError(f"{what}, too large for {kind}", "store this layer as float32 (store_dtype)")
                    remedy = "compute in float32 (--dtype float32); if that fails too, the weights are broken"
                    raise CacheError(what, remedy)
                fetched.features[number][i] = again[number]


@contextlib.contextmanager
def short_turns() -> Iterator[None]:
    """Let threads take Python's lock from one another sooner: launching a kernel must not wait 5 ms for its turn."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _load(job: Job) -> Encoder:
    import torch

    from cache.model.encoder import Encoder

    if job.threads is not None:
        torch.set_num_threads(job.threads)
    plan = job.plan
    return Encoder(plan.folder, plan.backbone, plan.layers, plan.dtype, job.device)
