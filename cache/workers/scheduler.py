"""One process a device: chunks are dealt out, every process writes its own shards, nobody locks anything.

With one device the work happens here. With several, processes (`cache.workers.process_pool`) start with a piece of work
each and ask for further ones whenever they are free, so that an uneven share costs what a slow one has ahead of it: a
piece, with helpers two for each of them. None is started that would find nothing to do.

A process that is lost, killed or with its device, costs what it had not committed: the store says what that is
(`cache.workers.in_flight`), and the others do it again. The texts that it had in hand come last and in small pieces,
and texts that were in hand at `_SUSPICIONS` losses end the job by name: they kill whoever touches them. What is at
fault with the work itself (`cache.devices.lost_device` tells) ends all at once; what was committed stays. To start a
new process on a device that was lost was left out: a GPU that failed once fails again, and memory that ran out needs
fewer processes. A device that hangs without an error is waited for.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cache.devices import lost_device, threads_each
from cache.errors import CacheError
from cache.progress import Tally
from cache.workers.background import Prefetcher
from cache.workers.in_flight import InFlight, Piece
from cache.workers.process_pool import Channel, Finished, JobFailed, ProcessFailed, ProcessPool, Request
from cache.workers.work_items import ITEM_TEXTS, ITEMS_READY, WorkItem, split_items
from cache.workers.worker import Job, Worker, run_job, short_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from cache.batching.packing import Batch

_PARTS = 32  # of the texts in hand at a loss, so that a second loss tells which it was
_SUSPICIONS = 3
_POLL_SECONDS = 0.5
_UNDERWAY = {"cpu": 1, "cuda": 8}  # batches a device may have in hand: kernels are launched ahead of what they compute


def run_jobs(
    job: Job, devices: Sequence[str], chunks: Iterable[WorkItem], on_batch: Callable[[int, str], None]
) -> Tally:
    """Compute and store `chunks` on `devices`, a process each if there are several.

    :raises CacheError: what a process raises; that every process was lost; that some texts cost several of them.
    """
    if len(devices) == 1:
        return _run_here(replace(job, device=devices[0]), chunks, on_batch)
    texts = ITEM_TEXTS[devices[0].partition(":")[0]]
    pieces: Iterator[Piece] = (
        Piece(chunk) for chunk in Prefetcher(split_items(chunks, texts, len(devices)), ITEMS_READY)
    )
    tally, devices = Tally(), list(devices)
    first = list(itertools.islice(pieces, len(devices)))
    while first:
        shift = _Scheduler(job, devices, first, pieces, on_batch)
        tally.add(shift.run())
        # whoever was lost when the others had ended left work for others yet
        devices = [device for device, member in zip(devices, shift.members, strict=False) if not member.lost] + devices[
            len(shift.members) :
        ]
        pieces = iter(shift.left)
        first = list(itertools.islice(pieces, len(devices)))
    return tally


def _run_here(job: Job, chunks: Iterable[WorkItem], on_batch: Callable[[int, str], None]) -> Tally:
    try:
        return run_job(job, chunks, on_batch)
    except Exception as error:
        lost = lost_device(error, job.device)
        if lost is None or lost is error:
            raise
        raise lost from error


# ------------------------------------------------------------------------------------------- in a process of the crew


@dataclass(frozen=True)
class Started:
    """A batch goes to the device: the rows of its texts, and what the tally counts of it."""

    rows: NDArray[np.integer]
    counts: tuple[int, int, int]


@dataclass(frozen=True)
class Progress:
    """So many texts were computed, or a stage begins."""

    texts: int
    stage: str


def _serve(channel: Channel, job: Job, first: WorkItem) -> Tally:
    """Compute `first` and what comes, until nothing more comes."""

    def begin(chunk: WorkItem, batch: Batch) -> None:
        rows = chunk.rows.astype(np.min_scalar_type(chunk.rows.max()))  # a full pipe would keep the device waiting
        channel.send(Started(rows, (batch.tokens, batch.nodes, batch.padding)))

    def orders() -> Iterator[WorkItem]:
        yield first
        yield from iter(channel.request, None)

    worker = Worker(job, lambda texts, stage: channel.send(Progress(texts, stage)), on_begin=begin)
    worker.run(orders())
    return worker.tally


# --------------------------------------------------------------------------------------------------- in the caller's


@dataclass
class _Worker:
    """What the dealer knows of one process."""

    device: str
    given: int = 0
    asks: bool = False
    dismissed: bool = False
    gone: bool = False
    lost: bool = False
    tally: Tally = field(default_factory=Tally)
    counts: tuple[int, int, int] = (0, 0, 0)
    in_hand: deque[NDArray[np.integer]] = field(default_factory=deque)

    def note(self, said: Started | Progress) -> None:
        """Keep which texts are in hand, and count what is computed."""
        if isinstance(said, Started):
            self.in_hand.append(said.rows)
            self.counts = said.counts
            while len(self.in_hand) > _UNDERWAY[self.device.partition(":")[0]]:
                self.in_hand.popleft()
        elif said.texts:
            tokens, nodes, padding = self.counts
            self.tally.add(Tally(said.texts, tokens, nodes, padding))
            if self.device == "cpu":
                self.in_hand.clear()

    @property
    def idle(self) -> bool:
        """Whether it has computed everything it was given and waits for more."""
        return self.asks and self.tally.computed >= self.given


class _Scheduler:
    """A crew at work: from its start until every process has ended, was lost, or all are told to end."""

    def __init__(
        self,
        job: Job,
        devices: Sequence[str],
        first: Sequence[Piece],
        pieces: Iterator[Piece],
        on_batch: Callable[[int, str], None],
    ) -> None:
        """Know what is to be done: `first` pieces, one a process, and those that follow."""
        self._again: deque[Piece] = deque()
        self._suspects: deque[Piece] = deque()
        self.members = [_Worker(device) for device in devices[: len(first)]]
        self._spare = len(devices) - len(self.members)  # not needed so far, and there to do again what is lost
        self._job = replace(job, threads=threads_each(len(first)), share=len(first))
        self._first, self._pieces, self._on_batch = first, pieces, on_batch
        self._ledger = InFlight(job.stores)
        self._tally = Tally()

    def run(self) -> Tally:
        """Deal pieces out until all are computed; `left` is then what was lost too late for others to do it.

        :raises CacheError: see `run_jobs`.
        """
        devices = [member.device for member in self.members]
        given = [
            (replace(self._job, device=device), piece.chunk) for device, piece in zip(devices, self._first, strict=True)
        ]
        for number, piece in enumerate(self._first):
            self._note_given(number, piece)
        # texts are looked up in another thread, which would keep this one from every message for 5 ms
        with short_turns(), ProcessPool(_serve, devices, given) as pool:
            while not all(member.gone for member in self.members):
                for number, said in pool.receive(_POLL_SECONDS):
                    self._receive(number, said)
                self._hand_out(pool)
        return self._tally

    @property
    def left(self) -> list[Piece]:
        """What is still to be done again."""
        return [*self._again, *self._suspects]

    def _next(self) -> Piece | None:
        """Return a piece to deal: what may cost another process comes last, when most is stored."""
        if self._again:
            return self._again.popleft()
        piece = next(self._pieces, None)
        return self._suspects.popleft() if piece is None and self._suspects else piece

    def _note_given(self, number: int, piece: Piece) -> None:
        self._ledger.hand_out(number, piece)
        self.members[number].given += len(piece)

    def _hand_out(self, pool: ProcessPool) -> None:
        """Give a piece to each process that asked for one, or tell all to end when all have computed what there is."""
        for number, member in enumerate(self.members):
            if member.asks and not member.gone and not member.dismissed:
                piece = self._next()
                if piece is None:
                    break
                self._note_given(number, piece)
                member.asks = False
                pool.send(number, piece.chunk)
        else:
            return
        there = [(number, member) for number, member in enumerate(self.members) if not member.gone]
        if all(member.idle for _, member in there):
            for number, member in there:
                if not member.dismissed:
                    member.dismissed = True
                    pool.send(number, None)

    def _receive(self, number: int, said: Any) -> None:
        member = self.members[number]
        if isinstance(said, Request):
            member.asks = True
        elif isinstance(said, Started):
            member.note(said)
        elif isinstance(said, Progress):
            member.note(said)
            self._on_batch(said.texts, said.stage)
        elif isinstance(said, Finished):
            member.gone = True
            self._tally.add(said.result)
        elif isinstance(said, ProcessFailed):
            member.gone = member.lost = True
            self._fail_worker(number, said)
        elif isinstance(said, JobFailed):
            if said.remedy is None:
                raise RuntimeError(f"in an embedding process: {said.problem}")
            raise CacheError(said.problem, said.remedy)

    def _fail_worker(self, number: int, lost: ProcessFailed) -> None:
        """Count what a lost process has stored, and put what it has not where others find it.

        :raises CacheError: no process is left; or the texts it had in hand have cost several by now.
        """
        member = self.members[number]
        left, stored = self._ledger.close(number)
        again = sum(map(len, left))
        self._tally.add(_part_of(member.tally, stored))
        self._on_batch(stored - member.tally.computed, "computing")
        for piece in _by_suspicion(left, member.in_hand):
            (self._suspects if piece.suspicions else self._again).append(piece)
        most = max((piece.suspicions for piece in self._suspects), default=0)
        which = _in_words([piece.chunk.rows for piece in self._suspects if piece.suspicions == most])
        if most >= _SUSPICIONS:
            raise CacheError(
                f"{most} processes were lost with {which} in hand, the last: {lost.reason}",
                "leave that out, or embed it apart with --devices cpu; what was committed is kept",
            )
        if not self._spare and all(other.lost for other in self.members):
            having = f" with {which} in hand, as another was" if most > 1 else ""
            raise CacheError(f"every process was lost, the last{having}: {lost.reason}", lost.remedy)
        note = f"{lost.reason}; {again:,} texts that it had not stored were done again by the others"
        self._tally.notes = (*self._tally.notes, note)


def _in_words(rows: Sequence[NDArray[np.int64]]) -> str:
    """Return "text 17" or "texts 17, 20 and 5 more"."""
    numbers = sorted({int(row) for some in rows for row in some})
    more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
    return f"text{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers[:5]))}{more}"


def _by_suspicion(pieces: list[Piece], in_hand: Iterable[NDArray[np.integer]]) -> list[Piece]:
    """Part texts that a lost process had in hand from the others, in pieces so small that the next loss tells more."""
    rows = np.concatenate([np.empty(0, np.int64), *in_hand])
    parted = []
    for piece in pieces:
        suspect = np.isin(piece.chunk.rows, rows)
        if not suspect.all():
            parted.append(piece.take(np.flatnonzero(~suspect)))
        for part in np.array_split(np.flatnonzero(suspect), min(_PARTS, int(suspect.sum()) or 1)):
            if len(part):
                parted.append(replace(piece.take(part), suspicions=piece.suspicions + 1))
    return parted


def _part_of(tally: Tally, texts: int) -> Tally:
    """Return what a tally would be for so many of its texts: exact for texts, in proportion for the rest."""
    share = min(1.0, texts / tally.computed) if tally.computed else 0.0
    return Tally(texts, round(share * tally.tokens), round(share * tally.nodes), round(share * tally.padding))
