"""A cluster to work on: one that exists, by its address, or one of our own on this machine, shut down at the end.

Ray talks a lot, and on both streams. Here it is asked to keep to its log files: what a person should know, this
package says. A cluster of our own has no dashboard, sends no usage statistics, listens on the loopback interface alone
and keeps its files in a folder of its own (two users of one machine collide in Ray's default one), so that it starts
without a network and leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import shutil
import socket
import sys
import tempfile
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from cache.devices import cores
from cache.errors import CacheError

if TYPE_CHECKING:
    from collections.abc import Iterator

_OBJECT_BYTES = 256 << 20
_CONNECTING_SECONDS = 10.0
_LONGEST_FOLDER = 30  # Ray's sockets lie some 70 characters deeper, and a socket's path may have 107
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclass(frozen=True)
class Node:
    """A living machine of the cluster: Ray's id for it, the name a person knows it by, its processors and GPUs."""

    id: str
    name: str
    cpus: int
    gpus: int


def import_ray(module: str = "ray") -> Any:
    """Import Ray, or a module of it.

    :raises CacheError: it is not installed.
    """
    os.environ.update({name: value for name, value in _QUIET.items() if name not in os.environ})
    try:
        return importlib.import_module(module)
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise CacheError(
            f"--engine ray needs Ray with its data part, which cannot be imported ({reason})",
            "pip install 'semantic-zoom[ray]'",
        ) from error


@contextlib.contextmanager
def connected(address: str | None = None, *, object_bytes: int = 0) -> Iterator[str]:
    """Be connected to a cluster inside the block; yields what to call it.

    A connection that this process has already is used and kept. `address`, else RAY_ADDRESS, names a cluster; without
    either one is started here, with room for `object_bytes` more than usual in its object store.

    :raises CacheError: Ray is not installed, no cluster answers there, or it runs other versions.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield "the cluster that this process is connected to"
        return
    address = address or os.environ.get("RAY_ADDRESS") or None
    _check_address(address)
    folder = None if address else _own_folder()
    try:
        _start(ray, address, folder, object_bytes)
        try:
            with _stdout_of_our_own():
                yield f"the cluster at {address}" if address else "a cluster on this machine"
        finally:
            ray.shutdown()
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


class _Stdout:
    """Standard output but for what Ray's listener writes there: that a node is lost is told by who counts actors."""

    def __init__(self, out: Any) -> None:
        self._out = out

    def __getattr__(self, name: str) -> Any:
        return getattr(self._out, name)

    def write(self, text: str) -> int:
        return len(text) if threading.current_thread().name.startswith("ray_") else int(self._out.write(text))


@contextlib.contextmanager
def _stdout_of_our_own() -> Iterator[None]:
    before = sys.stdout
    with contextlib.redirect_stdout(cast("Any", _Stdout(before))):
        yield


def _check_address(address: str | None) -> None:
    """Refuse what cannot be connected to: Ray itself would try for minutes, and say so on standard error."""
    if address and address.startswith(("ray://", "http://", "https://")):
        raise CacheError(
            f"{address} is not the address of a cluster's GCS",
            "run this on a node of the cluster (--ray-address auto), or hand it in with `ray job submit`",
        )
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=_CONNECTING_SECONDS).close()
        except OSError as error:
            raise CacheError(
                f"no Ray cluster at {address}: {error.strerror or error}", "check the address with `ray status` there"
            ) from error


def _own_folder() -> str:
    short = tempfile.gettempdir() if len(tempfile.gettempdir()) <= _LONGEST_FOLDER else "/tmp"
    return tempfile.mkdtemp(prefix="zoom-", dir=short)


def _start(ray: Any, address: str | None, folder: str | None, object_bytes: int) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    # a cluster found by RAY_ADDRESS or auto must not replace one that we mean to start
    own = {
        "address": "local",
        "include_dashboard": False,
        "num_cpus": cores(),
        "object_store_memory": _OBJECT_BYTES + object_bytes,
        "_node_ip_address": "127.0.0.1",
        "_temp_dir": folder,
    }
    try:
        ray.init(**quiet, **({"address": address} if address else own))
    except Exception as error:  # ConnectionError, RuntimeError, ValueError and more all mean: no cluster
        reason = " ".join(str(error).split())
        where = f"at {address}" if address else "on this machine"
        remedy = (
            "check the address, and that `ray status` answers there; python and ray must be the versions of the cluster"
            if address
            else "try `ray start --head` to see why, or use --engine local"
        )
        raise CacheError(f"no Ray cluster {where}: {reason[:300]}", remedy) from error


def quiet_data() -> Any:
    """Return `ray.data`, which logs to its files alone and draws no bars."""
    data = import_ray("ray.data")
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return data


def living_nodes() -> list[Node]:
    """Return the nodes that the cluster takes for alive, in the order of their ids."""
    ray = import_ray()
    found = []
    for node in ray.nodes():
        if node["Alive"]:
            resources = node["Resources"]
            name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            found.append(Node(node["NodeID"], name, int(resources.get("CPU", 0)), int(resources.get("GPU", 0))))
    return sorted(found, key=lambda node: node.id)


def on_node(node: Node) -> Any:
    """Return the scheduling strategy of work that is to run on `node` or nowhere."""
    strategies = import_ray("ray.util.scheduling_strategies")
    return strategies.NodeAffinitySchedulingStrategy(node.id, soft=False)


def reason_of(error: BaseException) -> BaseException:
    """Return the `CacheError` that is wrapped in what Ray raises for it, else `error` itself."""
    seen: BaseException | None = error
    for _ in range(8):
        if isinstance(seen, CacheError) and type(seen).__module__.startswith("cache."):
            return seen
        if seen is None:
            break
        seen = getattr(seen, "cause", None) or seen.__cause__
    return error
