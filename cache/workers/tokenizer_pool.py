"""Texts to packed batches in worker processes, for devices that compute faster than Python tokenizes.

A fast GPU embeds a text in ten microseconds; tokenizing and packing it takes Python nearly as long, and what Python
does in one thread, the thread that feeds the GPU waits for. The alternative, more threads, was measured: half the
speed.

Three processes feed the fastest GPU that there is. Where several GPUs share a host, each gets its part of the cores:
one for the process that launches kernels and writes, up to three for tokenizing; none where no core is left, and that
process then tokenizes by itself. A tokenizer has the threads that its part of the cores allows: left to itself it
starts one per core of the host, and the threads of six tokenizers do little but wait for one another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cache.backbone.registry import Backbone
from cache.batching.packing import Batch, Packing
from cache.batching.ragged import Sequences
from cache.batching.tokenizer import TextTokenizer
from cache.devices import cores
from cache.plan import Plan
from cache.workers.helper_processes import HelperProcesses

_MOST = 3
_THREADS = "RAYON_NUM_THREADS"


def tokenizer_share(processes: int) -> tuple[int, int]:
    """Return how many tokenizer processes, of how many threads, each of so many device processes of a host has.

    One core of each device process's share stays its own.
    """
    left = cores() // processes - 1
    count = max(0, min(_MOST, left))
    return count, left // count if count else 0


def tokenizer_pool(plan: Plan, count: int, threads: int) -> HelperProcesses:
    """Start processes that tokenize and pack, for a `with` block; they load the plan's tokenizer meanwhile.

    RAYON_NUM_THREADS, where it is set, wins over `threads`.
    """
    arguments = plan.folder, plan.backbone, plan.prompt
    return HelperProcesses(f"{__name__}.tokenizing", count, *arguments, environment={_THREADS: str(threads)})


def tokenizing(folder: Path, backbone: Backbone, prompt: str) -> Callable[[tuple[Sequence[str], Packing | None]], Any]:
    """Return what a process does: texts to token sequences, or with a packing to batches and the seconds they took."""
    tokenizer = TextTokenizer(folder, backbone, prompt)

    def work(message: tuple[Sequence[str], Packing | None]) -> Sequences | tuple[list[Batch], float]:
        texts, packing = message
        began = time.perf_counter()
        sequences = tokenizer.encode(texts)
        if packing is None:
            return sequences
        return list(packing.batches(sequences)), time.perf_counter() - began

    return work
