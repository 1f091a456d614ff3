"""The same in seconds, on this machine, as far as a few of them reach.

Counted operations say what must be done, not how fast: a training step of a small head is bound by starting its
operations, a search by reading memory. So what can be run here in a second or two is run: steps of the real fit, the
backbone on some of the dataset's own texts (if its weights are here and they suffice for a second), a query's product
with the gallery. Everything else is arithmetic on these and says so.

What the processor is called, and which commit runs: figures are told with them.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

import cache
from heads import fit_many
from pipeline.cost.backbone import BackboneCount
from pipeline.cost.counts import Search
from pipeline.cost.lengths import TextLengths


def processor() -> str:
    """Name the processor as the system does; its architecture where that says no more."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def commit() -> str | None:
    """Name the commit of the code that runs, with `+` where files differ from it; None outside a git checkout."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists() or shutil.which("git") is None:
        return None
    said = [
        subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False).stdout.strip()
        for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
    ]
    return said[0] + ("+" if said[1] else "") or None


_SECONDS = 1.5
_FIRST_STEPS, _MOST_STEPS = 4, 100
_BACKBONE_FLOPS = 1.5e11
_LEAST_TEXTS, _MOST_TEXTS = 24, 512
_SEARCH_BYTES = 1 << 28
_SEARCH_SECONDS = 0.2


@dataclass(frozen=True)
class BackboneSpeed:
    """Seconds per text of the dataset, over `texts` of them, and where: device and number format."""

    seconds_per_text: float
    texts: int
    device: str
    dtype: str


def step_seconds(method: str, labels: NDArray[np.int64], hidden: int, *, head: str, batch: int) -> float:
    """Seconds of one step of the real fit, on features drawn at random, which take as long.

    :param labels: int64 [n, L] of the training rows.
    """
    first = _fit_seconds(method, labels, hidden, head, batch, _FIRST_STEPS)
    steps = max(_FIRST_STEPS, min(_MOST_STEPS, int(_SECONDS / max(first, 1e-6))))
    return _fit_seconds(method, labels, hidden, head, batch, steps)


def _fit_seconds(method: str, labels: NDArray[np.int64], hidden: int, head: str, batch: int, steps: int) -> float:
    rows = _rows(labels, batch * steps)
    features = np.random.default_rng(0).standard_normal((len(rows), hidden), dtype=np.float32)
    batch = min(batch, len(rows))
    (result,) = fit_many(features, labels[rows], seeds=[0], method=method, head=head, epochs=1, batch_size=batch)
    return result.seconds / max(1, len(rows) // batch)


def _rows(labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Rows of every class with a pair, as evenly as they come, `count` of them at least if there are as many."""
    known = np.flatnonzero(labels[:, -1] >= 0)
    finest = labels[known, -1]
    order = np.argsort(finest, kind="stable")
    starts = np.searchsorted(finest[order], finest[order])
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - starts
    paired = np.bincount(finest)[finest] > 1
    by_rank = np.argsort(np.where(paired, rank, len(rank)), kind="stable")
    least = int((paired & (rank < 2)).sum())
    return np.sort(known[by_rank[: min(max(count, least), int(paired.sum()))]])


def backbone_speed(
    backbone: cache.backbone.Backbone,
    counted: BackboneCount,
    texts: Sequence[str],
    lengths: TextLengths,
) -> BackboneSpeed:
    """Embed some of the texts into a folder that is thrown away; loading the weights does not count.

    :raises cache.CacheError: if the weights are not here.
    """
    each = counted.products(lengths.tokens[lengths.distinct]) / len(lengths.distinct)
    count = int(min(max(_BACKBONE_FLOPS / each, _LEAST_TEXTS), _MOST_TEXTS, len(lengths.distinct)))
    chosen = np.random.default_rng(0).permutation(lengths.distinct)[:count]
    with tempfile.TemporaryDirectory() as folder:
        report = cache.embed_missing([texts[row] for row in chosen], cache.EmbedRequest(backbone, Path(folder)))
    seconds = report.stages["tokenizing"] + report.stages["computing"]
    return BackboneSpeed(seconds / report.computed, report.computed, report.device, report.dtype)


def search_seconds(search: Search) -> float | None:
    """Median seconds of one query's products with all documents in numpy; None if they would take too much memory."""
    if search.bytes_read > _SEARCH_BYTES:
        return None
    rng = np.random.default_rng(0)
    documents = rng.standard_normal((search.documents, search.dim), dtype=np.float32)
    query = rng.standard_normal(search.dim, dtype=np.float32)
    seconds: list[float] = []
    until = time.perf_counter() + _SEARCH_SECONDS
    while len(seconds) < 5 or time.perf_counter() < until:
        began = time.perf_counter()
        documents @ query
        seconds.append(time.perf_counter() - began)
    return median(seconds)


def machine() -> dict[str, Any]:
    """What was measured on."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor()
    return {"device": device, "threads": torch.get_num_threads(), "torch": torch.__version__, "os": platform.system()}
