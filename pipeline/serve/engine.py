"""Texts of concurrent requests to features in common batches, with the run's store as cache.

One thread owns the backbone. It takes what is waiting, all of it up to a limit, looks the texts up, computes each
missing one once in batches of the shape that `embed` uses, and answers each request with its own rows. Requests that
arrive meanwhile wait for the next round: the busier it is, the larger the batches. There is no timer; an idle server
answers a lone request at once. New features go to the store as `embed` writes them, rounded to its number format before
they are used, so that the same text gives the same bits here, in `pipeline encode`, and after a restart.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import cache
from cache.batching import TextTokenizer
from cache.model import Encoder
from pipeline.export.sentence_transformers_folder import backbone_of
from pipeline.serve.protocol import RequestError
from pipeline.workspace.artifacts import Artifacts
from pipeline.workspace.runs import Run

Singles = NDArray[np.float32]
_LOG = logging.getLogger("pipeline.serve")

_ROUND_TEXTS = 4096
"""Texts of one round at most, so that nobody waits for more than that."""
_WAITING_TEXTS = 65_536
"""Texts that may wait; whoever comes then is told to come back."""
_REMEMBERED = 32_768
"""Rows kept in memory between two looks at the store."""
_IDLE_SECONDS = 10.0


@dataclass(frozen=True)
class Answer:
    """Features float32 [n, H] of one request's texts, and their tokens."""

    features: Singles
    tokens: int


@dataclass(frozen=True)
class _Waiting:
    texts: Sequence[str]
    most_tokens: int
    future: Future[Answer] = field(default_factory=Future)


class Engine:
    """A run's backbone and head, loaded once: for a `with` block, whose end finishes what is waiting."""

    def __init__(self, artifacts: Artifacts, run: Run, device: str, source: str | None = None) -> None:
        """Load backbone and head.

        :param source: where the backbone is found now, if not where it was when the run was trained.
        :raises PipelineError: if the backbone found is not the run's.
        :raises cache.CacheError: if it cannot be loaded, or the store cannot be written.
        """
        self.run, self.head = run, run.load()
        description = run.record["features"]
        backbone, folder = backbone_of(artifacts, run, source, any_layer=True)
        self._prompt = str(run.record["prompt"])
        self._tokenizer = TextTokenizer(folder, backbone, self._prompt)
        self._encoder = Encoder(
            folder, backbone, (int(description["layer"]),), str(description["compute_dtype"]), device
        )
        name = f"{description['backbone']}-{run.record['fingerprint'][:12]}"
        self._store = cache.FeatureStore.create(artifacts.features / name, dict(description))
        self._store.refresh()
        self._new: dict[bytes, Singles] = {}
        self._queue: queue.Queue[_Waiting | None] = queue.Queue()
        self._waiting, self._lock = 0, threading.Lock()
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)

    def __enter__(self) -> Engine:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Answer what is waiting, write what is new, and end."""
        self._queue.put(None)
        self._thread.join()

    def submit(self, texts: Sequence[str], most_tokens: int) -> Future[Answer]:
        """Hand texts over.

        :raises RequestError: if too many are waiting.
        """
        with self._lock:
            if self._waiting + len(texts) > _WAITING_TEXTS:
                raise RequestError(503, "too many texts are waiting, try again in a moment", code="overloaded")
            self._waiting += len(texts)
        waiting = _Waiting(texts, most_tokens)
        self._queue.put(waiting)
        return waiting.future

    def embed(self, features: Singles, dim: int) -> Singles:
        """Embeddings of features, float32 [n, dim], unit vectors."""
        return self.head.embed(features, dim=dim)

    def label(self, features: Singles, dim: int) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Label paths of features and their probabilities, [n, levels] each, as `FractalHead.predict` gives them.

        :raises RequestError: if the head has no classifier.
        """
        if not any(self.head.labelling.supervised):
            raise RequestError(404, f"a {self.head.method} head has no classifier that could name labels")
        return self.head.predict(features, dim=dim)

    def _serve(self) -> None:
        with self._store.writer() as writer:
            more = True
            while more:
                taken, more = self._take()
                if taken:
                    self._answer(taken, writer)
                if not (taken and more) or len(self._new) > _REMEMBERED:  # nothing came for a while, or this is the end
                    self._write(writer)

    def _take(self) -> tuple[list[_Waiting], bool]:
        """Everything that waits, up to a round's texts, and whether there may be more."""
        taken: list[_Waiting] = []
        try:
            while sum(len(each.texts) for each in taken) < _ROUND_TEXTS:
                each = self._queue.get(timeout=_IDLE_SECONDS) if not taken else self._queue.get_nowait()
                if each is None:
                    return taken, False
                if each.future.set_running_or_notify_cancel():
                    taken.append(each)
                else:  # whoever asked has gone
                    self._count_out(each)
        except queue.Empty:
            pass
        return taken, True

    def _count_out(self, each: _Waiting) -> None:
        with self._lock:
            self._waiting -= len(each.texts)

    def _answer(self, taken: list[_Waiting], writer: Any) -> None:
        """Answer some requests together; where that fails, each alone, so that one request's fault is its own."""
        try:
            answers: list[Answer | Exception] = list(self._together(taken, writer))
        except Exception as error:
            if len(taken) > 1:
                for each in taken:
                    self._answer([each], writer)
                return
            answers = [error]
        for each, answer in zip(taken, answers, strict=True):
            self._count_out(each)
            if isinstance(answer, Exception):
                each.future.set_exception(answer)
            else:
                each.future.set_result(answer)

    def _together(self, taken: list[_Waiting], writer: Any) -> list[Answer]:
        texts = list(dict.fromkeys(text for each in taken for text in each.texts))
        sequences = self._tokenizer.encode(texts)
        lengths = dict(zip(texts, sequences.lengths.tolist(), strict=True))
        for each in taken:
            if sum(lengths[text] for text in each.texts) > each.most_tokens:
                raise RequestError(400, f"input has more than {each.most_tokens:,} tokens", param="input")
        keys = cache.text_keys(texts, self._prompt)
        names = [key.tobytes() for key in keys]
        rows = {name: self._new[name] for name in names if name in self._new}
        stored = np.flatnonzero(self._store.contains(keys))
        if len(stored):
            found = self._store.gather(keys[stored]).astype(np.float32)
            rows |= {names[at]: row for at, row in zip(stored.tolist(), found, strict=True)}
        missing = np.array([at for at, name in enumerate(names) if name not in rows], np.int64)
        if len(missing):
            computed = self._compute(sequences.take(missing))
            self._append(writer, keys[missing], computed)
            fresh = {names[at]: row for at, row in zip(missing.tolist(), computed, strict=True)}
            self._new |= fresh
            rows |= fresh
        by_text = dict(zip(texts, names, strict=True))
        return [
            Answer(np.stack([rows[by_text[text]] for text in each.texts]), sum(lengths[text] for text in each.texts))
            for each in taken
        ]

    def _append(self, writer: Any, keys: NDArray[np.uint8], computed: Singles) -> None:
        try:
            writer.append(keys, computed)
        except cache.CacheError as error:
            if not np.isfinite(computed).all():
                raise
            _LOG.warning("features are not kept: %s", error)

    def _compute(self, sequences: Any) -> Singles:
        """Features float32 [n, H], rounded to what the store holds."""
        found = torch.empty((len(sequences), self._store.dim))
        for batch in self._encoder.packing.batches(sequences):
            found[batch.rows] = self._encoder.features(batch)[0].float().cpu()
        return found.to(getattr(torch, self._store.dtype)).float().numpy()

    def _write(self, writer: Any) -> None:
        """Write what is new and let go of it; what the disk refuses is computed again when it is asked for."""
        if not self._new:
            return
        try:
            writer.flush()
            self._store.refresh()
        except (OSError, cache.CacheError) as error:
            _LOG.warning("features are not kept: %s", error)
        self._new.clear()
