"""Where actors may be: every GPU of the cluster, or slices of its nodes' processors.

A place is pinned to its node, so that who is lost with a node is known, and a node that joins is a place that has no
actor yet. Threads are counted out over a node's processors, as the local engine counts them over a machine's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cache.errors import CacheError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache.cluster.connection import Node


@dataclass(frozen=True)
class Place:
    """Where an actor may be: a GPU of a node, or the number of a slice of its processors with so many threads."""

    node: Node
    number: int
    device: str
    threads: int | None
    cpus: float
    gpus: int

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from others."""
        return self.node.id, self.number


def settled(nodes: Sequence[Node], devices: str) -> str:
    """Return what a word that leaves the choice means on these nodes: a call that began on GPUs ends on GPUs."""
    if devices not in ("auto", "all"):
        return devices
    return "cuda" if any(node.gpus for node in nodes) else "cpu"


def places(nodes: Sequence[Node], devices: str) -> list[Place]:
    """Return the places that `devices` means: "auto" takes GPUs where the cluster has any, "cpu:N" N actors a node.

    One processor of a node is left to reading, where it has more than one.

    :raises CacheError: a word that means nothing on a cluster, or GPUs where there are none.
    """
    on_cpu = devices.startswith("cpu")
    gpus = sum(node.gpus for node in nodes)
    if "cuda:" in devices:
        raise CacheError(f"devices {devices} with --engine ray", "use cuda for every GPU of the cluster, or cpu:N")
    if devices.startswith("cuda") and not gpus:
        raise CacheError("devices cuda: the cluster has no GPU", "use cpu, or start its nodes with their GPUs")
    if gpus and not on_cpu:
        return [
            Place(node, i, "cuda:0", None, 1 if node.cpus > node.gpus else 0, 1)
            for node in nodes
            for i in range(node.gpus)
        ]
    each = sum(int(part.partition(":")[2] or 1) for part in devices.split(",")) if on_cpu else 1
    return [
        Place(node, i, "cpu", max(1, node.cpus // each), _share(node.cpus - 1, each), 0)
        for node in nodes
        for i in range(each if node.cpus else 0)
    ]


def spare(nodes: Sequence[Node], devices: str) -> int:
    """Return how many processors actors leave to others, at least one."""
    held = sum(place.cpus for place in places(nodes, devices))
    return max(1, int(sum(node.cpus for node in nodes) - held))


def _share(cpus: int, actors: int) -> float:
    """Return an equal share, which Ray wants whole where it is more than one."""
    return cpus // actors if cpus >= actors else max(0, cpus) / actors
