"""Is the artifacts folder one folder? Asked of every node before any work is sent.

The driver writes a file, a task on each node reads it under the same path and writes one back, which the driver reads.
A node with a disk of its own under that path would otherwise compute for hours into a store that nobody sees. The same
task finds nodes that lack this package, or run another release of it.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.cluster.connection import import_ray, living_nodes, on_node, reason_of
from cache.errors import CacheError, file_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cache.cluster.connection import Node

_PATIENCE_SECONDS = 60.0


def check_shared(folder: Path) -> None:
    """Check that every living node reads and writes `folder`, an absolute path, and that it is one folder.

    :raises CacheError: a node does not see it, must not write there, cannot run this package, or does not answer.
    """
    token = secrets.token_hex(8)
    mine = folder / f".shared-{token}"
    nodes = living_nodes()
    try:
        mine.write_text(token, encoding="utf-8")
    except OSError as error:
        raise file_error("write", mine, error) from error
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
        task.options(num_cpus=0, max_retries=0, scheduling_strategy=on_node(node)).remote(
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
            "install the same semantic-zoom[ray] in the Python that Ray uses there, on every node",
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
