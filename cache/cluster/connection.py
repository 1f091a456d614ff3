"""A cluster to work on: one that exists, by its address, or one of our own on this machine, shut down at the end.

Ray talks a lot, and on both streams. Here it is asked to keep to its log files: what a person should know, this
package says. A cluster of our own has no dashboard, sends no usage statistics, listens on the loopback interface alone
and keeps its files in a folder of its own (two users of one machine collide in Ray's default one), so that it starts
without a network and leaves nothing behind.

Is the artifacts folder one folder? Asked of every node before any work is sent.

The driver writes a file, a task on each node reads it under the same path and writes one back, which the driver reads.
A node with a disk of its own under that path would otherwise compute for hours into a store that nobody sees. The same
task finds nodes that lack this package, or run another release of it.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from cache.devices import cores
from cache.errors import CacheError, file_errors, one_line

_PATIENCE_SECONDS = 60.0


def check_shared(folder: Path) -> None:
    """Check that every living node reads and writes `folder`, an absolute path, and that it is one folder.

    :raises CacheError: a node does not see it, must not write there, cannot run this package, or does not answer.
    """
    token = secrets.token_hex(8)
    mine = folder / f".shared-{token}"
    nodes = living_nodes()
    with file_errors("write", mine):
        mine.write_text(token, encoding="utf-8")
    try:
        _ask(nodes, mine, token)
    finally:
        for path in (mine, *(_answer_of(mine, node.id) for node in nodes)):
            path.unlink(missing_ok=True)


def _answer_of(mine: Path, node: str) -> Path:
    return mine.with_name(f"{mine.name}-{node[:16]}")


def _ask(nodes: Sequence[Node], mine: Path, token: str) -> None:
    ray = import_ray()
    task = ray.remote(look_here)
    asked = {
        task.options(num_cpus=0, max_retries=0, scheduling_strategy=on_node(node.id)).remote(
            str(mine), token, str(_answer_of(mine, node.id))
        ): node
        for node in nodes
    }
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=_PATIENCE_SECONDS)
    if silent:
        raise CacheError(
            f"node {asked[silent[0]].name} did not answer within {_PATIENCE_SECONDS:.0f} s",
            "see `ray status`; take that node out, or try again when it is idle",
        )
    for reference in answered:
        node = asked[reference]
        _check_answer(ray, reference, node, mine, token)


def _check_answer(ray: Any, reference: Any, node: Node, mine: Path, token: str) -> None:
    try:
        problem = ray.get(reference)
    except Exception as error:  # whatever a node without this package, or that just died, makes Ray raise
        reason = (str(reason_of(error)).strip().splitlines() or [""])[-1]
        raise CacheError(
            f"node {node.name} cannot run this package: {reason[:200]}",
            "install this checkout and 'ray[data]' in the Python that Ray uses there, on every node",
        ) from error
    if problem is None:
        try:
            if _answer_of(mine, node.id).read_text(encoding="utf-8") == token:
                return
            problem = "what it wrote there reads differently here"
        except OSError:
            problem = "what it wrote there is not seen here"
    raise CacheError(
        f"node {node.name} does not share {mine.parent}: {problem}",
        "name an --artifacts folder on a file system that every node mounts under the same path",
    )


def look_here(path: str, token: str, answer: str) -> str | None:
    """Run on a node: read the file that the driver wrote, write the answer; return what is wrong, or None."""
    try:
        if Path(path).read_text(encoding="utf-8") != token:
            return "it reads another file there"
        Path(answer).write_text(token, encoding="utf-8")
    except FileNotFoundError:
        return "the file that was written here is not there"
    except OSError as error:
        return f"{error.strerror or error}"
    return None


_OBJECT_BYTES = 256 << 20
_CONNECTING_SECONDS = 10.0
_LONGEST_FOLDER = 30  # Ray's sockets lie some 70 characters deeper, and a socket's path may have 107
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
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
        raise CacheError(
            f"--engine ray needs Ray with its data part, which cannot be imported ({one_line(error)})",
            "pip install 'ray[data]'",
        ) from error


@contextlib.contextmanager
def connected(address: str | None = None) -> Iterator[str]:
    """Be connected to a cluster inside the block; yields what to call it.

    A connection that this process has already is used and kept. `address`, else RAY_ADDRESS, names a cluster; without
    either one is started here.

    :raises CacheError: Ray is not installed, no cluster answers there, or it runs other versions.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield "the cluster that this process is connected to"
        return
    address = address or os.environ.get("RAY_ADDRESS") or None
    _check_address(address)
    folder = None
    if address is None:
        short = tempfile.gettempdir() if len(tempfile.gettempdir()) <= _LONGEST_FOLDER else "/tmp"
        folder = tempfile.mkdtemp(prefix="zoom-", dir=short)
    try:
        _start(ray, address, folder)
        with contextlib.redirect_stdout(cast("Any", _Stdout(sys.stdout))):
            try:
                yield f"the cluster at {address}" if address else "a cluster on this machine"
            finally:
                with contextlib.redirect_stdout(io.StringIO()):  # for what Ray held back as repetitions
                    ray.shutdown()
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


class _Stdout:
    """Standard output without the lines that Ray's listener thread writes there, such as that a node is lost."""

    def __init__(self, out: Any) -> None:
        self._out = out

    def __getattr__(self, name: str) -> Any:
        return getattr(self._out, name)

    def write(self, text: str) -> int:
        from_ray = threading.current_thread().name.startswith("ray_")
        return len(text) if from_ray else int(self._out.write(text))


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Discard what is written to standard error, also by libraries: Ray says there which log level it was told."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep what this process does on SIGTERM: Ray would end it at once, with a stack trace of its own."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


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


def _start(ray: Any, address: str | None, folder: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    # a cluster found by RAY_ADDRESS or auto must not replace one that we mean to start
    own = {
        "address": "local",
        "include_dashboard": False,
        "num_cpus": cores(),
        "object_store_memory": _OBJECT_BYTES,
        "_node_ip_address": "127.0.0.1",
        "_temp_dir": folder,
    }
    try:
        with _no_stderr(), _own_sigterm():
            ray.init(**quiet, **({"address": address} if address else own))
    except Exception as error:  # ConnectionError, RuntimeError, ValueError and more all mean: no cluster
        where = f"at {address}" if address else "on this machine"
        remedy = (
            "check the address, and that `ray status` answers there; python and ray must be the versions of the cluster"
            if address
            else "try `ray start --head` to see why, or use --engine local"
        )
        raise CacheError(f"no Ray cluster {where}: {one_line(error, 300)}", remedy) from error


def quiet_data() -> Any:
    """Return `ray.data`, which logs to its files alone and draws no bars."""
    data = import_ray("ray.data")
    warnings.filterwarnings("ignore", module=r"ray\.")  # about its own settings and numbers of blocks
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True  # else what an actor raises arrives as text
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return data


def living_nodes() -> list[Node]:
    """Return the nodes that the cluster takes for alive, in the order of their ids."""
    found = []
    for node in import_ray().nodes():
        if node["Alive"]:
            resources = node["Resources"]
            name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            found.append(Node(node["NodeID"], name, int(resources.get("CPU", 0)), int(resources.get("GPU", 0))))
    return sorted(found, key=lambda node: node.id)


def on_node(node: str) -> Any:
    """Return the scheduling strategy of work that is to run on the node with this id or nowhere."""
    strategies = import_ray("ray.util.scheduling_strategies")
    return strategies.NodeAffinitySchedulingStrategy(node, soft=False)


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
