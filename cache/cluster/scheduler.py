"""The actors and what each of them is doing: orders are dealt to whoever has least, and those of the lost dealt again.

Ray Data has a pool of actors of its own; it is not used for computing. A pool of fixed size waits for the replacement
of an actor whose node will never come back (with its retries), or leaves dead ones in their places until none is left
and nothing moves (without them). Here a lost actor's orders go to the others at once, each with the advice to look
first what was stored, and a node that joins, or an actor that only crashed, gets a new one; after three losses in a
place no more, and an order that was lost with five actors ends the work. What an actor *raises* is no loss, unless it
says that its device is gone: it ends everything, as it does on one machine.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from cache.cluster.actor import Done, Embedder
from cache.cluster.connection import Place, import_ray, living_nodes, on_node, places, reason_of
from cache.errors import CacheError, DeviceError
from cache.progress import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cache.cluster.connection import Node
    from cache.cluster.reader import Block, Feed
    from cache.workers.worker import Job

_ORDERS = 4  # an actor's at a time: one computed, one tokenized, the others waiting to be committed
_LOSSES = 3
_ORDER_LOSSES = 5
_RECRUITING_SECONDS = 5.0
_LISTENING_SECONDS = 0.1
_ASKING_SECONDS = 0.3
_STOPPING_SECONDS = 10.0


@dataclass(frozen=True)
class Order:
    """A block to compute; `losses` counts the actors that were lost while they had it."""

    number: int
    block: Block
    losses: int = 0


@dataclass
class _Worker:
    actor: Any
    place: Place
    ready: bool = False
    orders: dict[int, Order] = field(default_factory=dict)
    computed: int = 0
    acknowledged: int = 0
    stage: str = "starting"
    asked: float = 0.0


@dataclass
class Outcome:
    """What a pass came to: texts looked up, what computing took, and whether every block could be had."""

    seen: int = 0
    tally: Tally = field(default_factory=Tally)
    whole: bool = True


class Scheduler:
    """A `with` block around `run`: leaving it commits what was computed and ends the actors."""

    def __init__(self, job: Job, devices: str, most: int, tell: Callable[[int, int, str], None]) -> None:
        """Start nothing yet.

        :param most: more actors than this would find nothing to do.
        :param tell: is called with the number of texts done in the running pass, that of texts computed for blocks that
            are not done yet, and what is going on.
        """
        self._ray = import_ray()
        self._job, self._devices, self._most, self._tell = job, devices, most, tell
        self._members: list[_Worker] = []
        # reference -> who was asked, and what: "ready", "progress" or an order by its number
        self._asked: dict[Any, tuple[_Worker, str | int]] = {}
        self._waiting: deque[Order] = deque()
        self._losses: Counter[tuple[str, int]] = Counter()
        self._lost: list[str] = []
        self._worked: dict[tuple[str, int], Place] = {}
        self._recruited = float("-inf")
        self._reason: CacheError | None = None
        self._given = self._redone = 0
        self._expecting = False
        self._outcome = Outcome()
        self.tally = Tally()

    def __enter__(self) -> Self:
        """Use it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Commit and end."""
        self._stop_workers()

    @property
    def description(self) -> str:
        """Who computed, such as "2 actors on 2 nodes"; "none" where nothing was to be done."""
        if not self._worked:
            return "none"
        kind = "GPU actor" if any(place.gpus for place in self._worked.values()) else "actor"
        return f"{_counted(len(self._worked), kind)} on {_counted(len({node for node, _ in self._worked}), 'node')}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know afterwards."""
        if not self._lost:
            return ()
        where = ", ".join(dict.fromkeys(self._lost))
        return (f"{_counted(len(self._lost), 'actor')} lost on {where}: {_counted(self._redone, 'order')} given again",)

    def run(self, feed: Feed, *, expecting: bool) -> Outcome:
        """Have every block of `feed` computed and stored.

        :param expecting: something is missing for sure, so that actors start while the first texts are read.
        :raises CacheError: what reading or an actor raises, or that actors are lost wherever they are started.
        """
        self._outcome = Outcome()
        self._expecting = expecting
        while not self._done(feed):
            self._hand_out(feed)
            self._start_workers()
            self._receive_answers()
            self._report()
        return self._outcome

    def _done(self, feed: Feed) -> bool:
        return feed.exhausted and not self._waiting and not any(member.orders for member in self._members)

    def _hand_out(self, feed: Feed) -> None:
        """Give orders to ready actors that have few, least first."""
        while True:
            free = [member for member in self._members if member.ready and len(member.orders) < _ORDERS]
            if not self._waiting and (free or not self._members):
                self._take_in(feed)
            if not free or not self._waiting:
                return
            member, order = min(free, key=lambda one: len(one.orders)), self._waiting.popleft()
            member.orders[order.number] = order
            self._worked[member.place.key] = member.place
            embed = member.actor.embed.remote(order.number, order.block.reference, order.losses > 0)
            self._asked[embed] = (member, order.number)

    def _take_in(self, feed: Feed) -> None:
        """Take the next block that needs computing, if there is one already."""
        while (block := feed.poll(0.0)) is not None:
            if not block.empty:
                self._given += 1
                self._waiting.append(Order(self._given, block))
                return
            self._outcome.seen += block.seen

    def _start_workers(self) -> None:
        """Start an actor in every place that has none, once there is work, and from time to time: nodes come and go.

        :raises CacheError: there is no place left to start one.
        """
        now = time.monotonic()
        if now - self._recruited < _RECRUITING_SECONDS or not (self._waiting or self._members or self._expecting):
            return
        self._recruited = now
        taken = {member.place.key for member in self._members}
        there = places(living_nodes(), self._devices)
        for place in there:
            if len(self._members) >= self._most:
                break
            if place.key not in taken and self._losses[place.key] < _LOSSES:
                self._start(place, there)
        if not self._members:
            raise self._reason or CacheError(
                "the cluster has no processor to compute on", "start its nodes with --num-cpus or --num-gpus"
            )

    def _start(self, place: Place, there: Sequence[Place]) -> None:
        job = job_at(self._job, place, there, self._most)
        options = {
            "num_cpus": place.cpus,
            "num_gpus": place.gpus,
            "max_restarts": 0,
            "max_concurrency": _ORDERS + 4,
            "scheduling_strategy": on_node(place.node),
        }
        member = _Worker(self._ray.remote(Embedder).options(**options).remote(job, place.node.name), place)
        self._members.append(member)
        self._asked[member.actor.ready.remote()] = (member, "ready")

    def _receive_answers(self) -> None:
        """Take in what actors answered; wait a moment for it."""
        now = time.monotonic()
        for member in self._members:
            if member.ready and member.orders and now - member.asked >= _ASKING_SECONDS:
                member.asked = now
                self._asked[member.actor.progress.remote()] = (member, "progress")
        if not self._asked:
            time.sleep(_LISTENING_SECONDS / 4)
            return
        answered, _ = self._ray.wait(list(self._asked), num_returns=1, timeout=_LISTENING_SECONDS)
        for reference in answered:
            member, what = self._asked.pop(reference)
            try:
                self._note_answer(member, what, self._ray.get(reference))
            except self._ray.exceptions.RayError as error:
                self._note_error(member, what, error)

    def _note_answer(self, member: _Worker, what: str | int, answer: Any) -> None:
        if isinstance(answer, Done):
            assert isinstance(what, int)
            del member.orders[what]
            member.acknowledged += answer.tally.computed
            self._losses.pop(member.place.key, None)  # it does work there
            self._outcome.seen += answer.seen
            self._outcome.tally.add(answer.tally)
        elif what == "ready":
            member.ready = True
        else:
            member.computed, member.stage = answer

    def _note_error(self, member: _Worker, what: str | int, error: Exception) -> None:
        """An actor that is gone leaves its orders to the others; a block that is gone waits for the next pass.

        :raises CacheError: what the actor raised.
        """
        gone = self._ray.exceptions
        found = reason_of(error)
        if isinstance(found, DeviceError):
            self._fail_worker(member, CacheError(found.problem, found.remedy))
        elif isinstance(found, CacheError):
            raise CacheError(found.problem, found.remedy) from error
        elif isinstance(error, gone.ObjectLostError) and isinstance(what, int):
            member.orders.pop(what, None)
            self._outcome.whole = False
        elif isinstance(error, gone.RayTaskError):
            raise error  # a defect of this package
        else:  # the actor died, its node did, or is gone before the actor could be started there
            self._fail_worker(member, _lost_on(member.place.node))

    def _fail_worker(self, member: _Worker, reason: CacheError) -> None:
        if member not in self._members:
            return
        self._reason = reason
        self._members.remove(member)
        self._asked = {asked: entry for asked, entry in self._asked.items() if entry[0] is not member}
        self._losses[member.place.key] += 1
        if member.ready:
            self._lost.append(member.place.node.name)
        self._redone += len(member.orders)
        again = [replace(order, losses=order.losses + 1) for order in member.orders.values()]
        if any(order.losses >= _ORDER_LOSSES for order in again):
            raise reason
        self._waiting.extendleft(again)
        self._recruited = float("-inf")
        with contextlib.suppress(Exception):
            self._ray.kill(member.actor)  # it may only have been out of reach

    def _report(self) -> None:
        underway = sum(max(0, member.computed - member.acknowledged) for member in self._members if member.orders)
        stages = [member.stage for member in self._members] or ["reading"]
        stage = next((stage for stage in ("computing", "writing", *stages) if stage in stages), "reading")
        self._tell(self._outcome.seen, underway, stage)

    def _stop_workers(self) -> None:
        """End the actors: they commit what they have computed, and say what it took."""
        stopping = [member.actor.stop.remote() for member in self._members if member.ready]
        with contextlib.suppress(Exception):
            answered, _ = self._ray.wait(stopping, num_returns=max(1, len(stopping)), timeout=_STOPPING_SECONDS)
            for reference in answered:
                with contextlib.suppress(self._ray.exceptions.RayError):
                    said = self._ray.get(reference)
                    self.tally.add(Tally(stages=said.stages, notes=said.notes))
        for member in self._members:
            with contextlib.suppress(Exception):
                self._ray.kill(member.actor)
        self._members.clear()


def job_at(job: Job, place: Place, there: Sequence[Place], most: int) -> Job:
    """Return the job of the actor in a place, one of those `there`, of which at most `most` get an actor."""
    share = max(1, min(len(there), most))
    beside = sum(other.node == place.node for other in there)
    return replace(job, device=place.device, threads=place.threads, share=share, on_host=min(share, beside))


def _lost_on(node: Node) -> CacheError:
    return CacheError(
        f"actors on {node.name} are lost again and again",
        "the node's memory may not suffice: see Ray's logs, use fewer actors; run again to go on with what is left",
    )


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
