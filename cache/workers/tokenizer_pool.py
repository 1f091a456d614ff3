"""Texts to packed batches, here or in a process of its own.

A fast GPU embeds a text in ten microseconds; tokenizing and packing it takes Python nearly as long, and what Python
does in one thread, the thread that feeds the GPU waits for. So where there is much to do, helper processes
(`cache.workers.helper_processes`) tokenize and pack. The alternative, more threads, was measured: half the speed.

Three feed the fastest GPU that there is. Where several GPUs share a host, each gets its part of the cores: one for the
process that launches kernels and writes, the others, up to three, for helpers; none where there is no core left, and
that process then tokenizes by itself. A helper's tokenizer has the threads that its part of the cores allows: left to
itself it starts one on every core of the host, and the threads of six helpers do little but wait for one another.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cache.batching.block_mask import HostTrie
from cache.batching.packing import Batch, pack
from cache.batching.tokenizer import TextTokenizer
from cache.devices import cores
from cache.workers.helper_processes import HelperProcesses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from cache.backbone.registry import Backbone
    from cache.batching.ragged import Sequences

T = TypeVar("T")
_MOST = 3
_THREADS = "RAYON_NUM_THREADS"


def tokenizer_share(processes: int) -> tuple[int, int]:
    """Return how many helpers each of so many processes of this host, a device each, should have, of how many threads.

    One core of each process's share stays its own.
    """
    left = cores() // processes - 1
    count = max(0, min(_MOST, left))
    return count, left // count if count else 0


@dataclass(frozen=True)
class Packing:
    """How an encoder wants its batches: layout and most nodes (`packing.pack`); with block lists if `laid_out`.

    `windowed`: some layer sees a local window only (`cache.batching.block_mask.HostTrie`).
    """

    layout: str
    budget: int
    laid_out: bool = False
    windowed: bool = False

    def batches(self, sequences: Sequences) -> Iterator[Batch]:
        """Yield the batches that hold `sequences`."""
        for batch in pack(sequences, self.layout, self.budget):
            yield replace(batch, laid_out=HostTrie.of(batch, windowed=self.windowed)) if self.laid_out else batch


class TokenizerPool(HelperProcesses):
    """Processes that tokenize and pack, in turns: a `with` block around `prepare`."""

    def __init__(self, folder: Path, backbone: Backbone, prompt: str, count: int, threads: int) -> None:
        """Start them; they load the tokenizer of the checkpoint in `folder` meanwhile.

        Each puts `prompt` before every text. RAYON_NUM_THREADS, where it is set, counts instead of `threads`.
        """
        what = f"{__name__}.tokenizing"
        super().__init__(what, count, folder, backbone, prompt, environment={_THREADS: str(threads)})

    def encode(self, texts: Sequence[str]) -> Sequences:
        """Return the token sequences of `texts`.

        :raises CacheError: what tokenizing raises, or that a helper was killed.
        """
        sequences: Sequences = self.ask((texts, None))
        return sequences

    def prepare(
        self, chunks: Iterable[T], texts_of: Callable[[T], Sequence[str]], packing: Packing
    ) -> PreparedItems[T]:
        """Return an iterator over each chunk with its batches; the helpers set to work at once."""
        return PreparedItems(self, chunks, texts_of, packing)


class PreparedItems(Generic[T]):
    """Yields each chunk with the batches of its texts and the seconds they took.

    `packing` may be set anew: chunks that are handed out later follow it.
    """

    def __init__(
        self, helpers: HelperProcesses, chunks: Iterable[T], texts_of: Callable[[T], Sequence[str]], packing: Packing
    ) -> None:
        """Hand out the first chunks."""
        self.packing = packing
        self._answers = helpers.map(chunks, lambda chunk: (texts_of(chunk), self.packing))

    def __iter__(self) -> Iterator[tuple[T, list[Batch], float]]:
        """Yield in the chunks' order.

        :raises CacheError: what tokenizing raises, or that a helper was killed.
        """
        for chunk, (batches, seconds) in self._answers:
            yield chunk, batches, seconds


def tokenizing(folder: Path, backbone: Backbone, prompt: str) -> Callable[[tuple[Sequence[str], Packing | None]], Any]:
    """Return what a helper does: texts to token sequences, or with a packing to their batches and the seconds taken."""
    tokenizer = TextTokenizer(folder, backbone, prompt)

    def work(order: tuple[Sequence[str], Packing | None]) -> Sequences | tuple[list[Batch], float]:
        texts, packing = order
        began = time.perf_counter()
        sequences = tokenizer.encode(texts)
        if packing is None:
            return sequences
        return list(packing.batches(sequences)), time.perf_counter() - began

    return work
