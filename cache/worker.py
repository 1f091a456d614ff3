"""One process's share: texts in, features in the stores, with nothing waiting for anything.

Three threads overlap: texts are tokenized and packed ahead, the caller's thread keeps the device busy, and features are
checked and appended behind. A chunk is what the lookup found missing; a batch is what the device computes at once.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cache.ahead import Behind, ahead
from cache.errors import CacheError
from cache.report import Tally
from cache.store import FeatureStore
from cache.tokens import Sequences, TextTokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path
    from typing import Any

    import torch
    from numpy.typing import NDArray

    from cache.backbones import Backbone
    from cache.encoder import Encoder
    from cache.packing import Batch

_WRITES_WAITING = 8
_BATCHES_WAITING = 8


@dataclass(frozen=True)
class Job:
    """What a process needs to know; can be sent to another.

    `total` texts are expected in all (0: unknown), of which this process is one of `share`.
    """

    folder: Path
    backbone: Backbone
    layers: tuple[int, ...]
    dtype: str
    device: str
    threads: int | None
    stores: tuple[tuple[Path, Mapping[str, Any]], ...]
    prompt: str
    total: int
    share: int = 1


@dataclass(frozen=True)
class Chunk:
    """Texts to compute: `rows` int64 [n] are their places in the caller's texts, `keys` uint8 [n, 16].

    `absent` bool [stores, n] says which stores lack a text: one layer may be there and another not.
    """

    texts: list[str]
    rows: NDArray[np.int64]
    keys: NDArray[np.uint8]
    absent: NDArray[np.bool_]


@dataclass(frozen=True)
class Computed:
    """A batch on its way to the stores: `features` [layers, m, H] of the chunk's texts `at`, int64 [m]."""

    chunk: Chunk
    at: NDArray[np.int64]
    features: torch.Tensor


def run_job(job: Job, chunks: Iterable[Chunk], on_batch: Callable[[int, str], None]) -> Tally:
    """Compute and store every text of `chunks`; `on_batch(texts, stage)` is called after each batch.

    :raises CacheError: see `cache.embedding.embed_missing`; what was computed before is stored.
    """
    tally = Tally()
    began = time.perf_counter()
    tokenized = ahead(_tokenize(job, chunks, tally), 1)
    on_batch(0, "loading")
    encoder = _load(job)
    tally.notes = encoder.notes
    tally.stages["loading"] = time.perf_counter() - began
    with Behind[Computed](lambda items: _write(job, items, tally), _WRITES_WAITING) as writing:
        for chunk, batch in ahead(_pack(tokenized, encoder, tally), _BATCHES_WAITING):
            began = time.perf_counter()
            features = encoder.features(batch).cpu()
            tally.stages["computing"] += time.perf_counter() - began
            writing.put(Computed(chunk, batch.rows, features))
            tally.computed += len(batch.rows)
            tally.tokens += batch.tokens
            tally.nodes += batch.nodes
            tally.padding += batch.padding
            on_batch(len(batch.rows), "computing")
    return tally


def _load(job: Job) -> Encoder:
    import torch

    from cache.encoder import Encoder

    if job.threads is not None:
        torch.set_num_threads(job.threads)
    return Encoder(job.folder, job.backbone, job.layers, job.dtype, job.device)


def _tokenize(job: Job, chunks: Iterable[Chunk], tally: Tally) -> Iterator[tuple[Chunk, Sequences]]:
    tokenizer = TextTokenizer(job.folder, job.backbone)
    for chunk in chunks:
        began = time.perf_counter()
        sequences = tokenizer.encode([job.prompt + text for text in chunk.texts])
        empty = np.flatnonzero(sequences.lengths == 0)
        if len(empty):
            raise CacheError(f"text {chunk.rows[empty[0]]} has no tokens", "remove that text, or give it content")
        tally.stages["tokenizing"] += time.perf_counter() - began
        yield chunk, sequences


def _pack(
    tokenized: Iterable[tuple[Chunk, Sequences]], encoder: Encoder, tally: Tally
) -> Iterator[tuple[Chunk, Batch]]:
    for chunk, sequences in tokenized:
        began = time.perf_counter()
        for batch in encoder.pack(sequences, encoder.budget):
            tally.stages["tokenizing"] += time.perf_counter() - began
            yield chunk, batch
            began = time.perf_counter()


def _write(job: Job, items: Iterator[Computed], tally: Tally) -> None:
    """Append features to each layer's store until there are no more."""
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(FeatureStore.create(*store).writer()) for store in job.stores]
        for item in items:
            began = time.perf_counter()
            for layer, writer in enumerate(writers):
                features, keep = item.features[layer].numpy(), item.chunk.absent[layer, item.at]
                _refuse_broken(features, item, job.layers[layer], str(job.stores[layer][1]["store_dtype"]))
                writer.append(item.chunk.keys[item.at[keep]], features[keep])
            tally.stages["writing"] += time.perf_counter() - began


def _refuse_broken(features: NDArray[np.float32], item: Computed, layer: int, store_dtype: str) -> None:
    """Name the text whose feature cannot be stored.

    :raises CacheError: a feature is not finite, or too large for the store's dtype.
    """
    largest = np.abs(features).max(axis=1)
    limit = float(np.finfo(np.float16).max) if store_dtype == "float16" else np.inf
    bad = np.flatnonzero(~(largest < limit))
    if len(bad):
        row = int(item.chunk.rows[item.at[bad[0]]])
        text, value = item.chunk.texts[item.at[bad[0]]], largest[bad[0]]
        what = f"text {row} ({text[:40]!r}): its feature of layer {layer} has the value {value}"
        if np.isfinite(value):
            raise CacheError(f"{what}, too large for float16", "store this layer as float32 (store_dtype='float32')")
        raise CacheError(what, "compute in float32 (--dtype float32); if that fails too the weights are broken")
