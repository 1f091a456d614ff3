"""What runs on a GPU, or on a share of a node's processors: a backbone that embeds the batches that Ray Data gives it.

It is the local engine's worker, loaded once, when the first text is missing. A call looks its texts up, computes and
stores those that are missing, and returns a count when they are on the disk: a batch that Ray takes for done is done.
An actor that is lost costs the batch that it was at, which Ray gives to another; a batch that cost three ends the job.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from cache.backbone.fingerprint import identity, read_content
from cache.backbone.hub import locate
from cache.backbone.registry import package_folder
from cache.cluster.connection import import_ray
from cache.devices import lost_device
from cache.errors import CacheError
from cache.progress import Tally
from cache.store.hashing import KEY_BYTES, text_keys
from cache.workers.scheduler import MOST_FAILURES
from cache.workers.work_items import WorkItem, split_items
from cache.workers.worker import Job, Worker

_ITEM_TEXTS = 2048  # so that texts are tokenized while others are computed


@dataclass(frozen=True)
class Done:
    """A batch is on the disk: how many texts it had, what the missing ones took, and which actor of which node did it.

    `done` is the JSON form that travels in a column.
    """

    texts: int
    tally: Tally
    actor: str
    node: str

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Done:
        """Return what `to_json` was called on."""
        found = json.loads(text)
        tally = found.pop("tally")
        return Done(tally=Tally(**{**tally, "notes": tuple(tally["notes"])}), **found)


class Attempts:
    """An actor that counts how often each batch was begun."""

    def __init__(self) -> None:
        self._begun: Counter[bytes] = Counter()

    def begin(self, batch: bytes) -> int:
        """Count one more attempt at a batch; return how many there were."""
        self._begun[batch] += 1
        return self._begun[batch]


class Embedder:
    """An actor; `job` as the driver knows it, `indexes` references to the key index of each of its stores."""

    def __init__(self, job: Job, indexes: tuple[Any, ...], attempts: Any) -> None:
        """Load nothing yet; `attempts` is the handle of an actor `Attempts`."""
        ray = import_ray()
        context = ray.get_runtime_context()
        self._node, self._actor = context.get_node_id(), context.get_actor_id() or ""
        self._job, self._attempts = job, attempts
        self._indexes = ray.get(list(indexes))  # mapped from shared memory, not copied
        self._worker: Worker | None = None

    def __call__(self, table: Any) -> dict[str, Any]:
        """Embed a batch, a table with the column `text` and, of texts that the driver had, `row`.

        :raises CacheError: see `cache.embedding.embed_missing`.
        """
        texts = table["text"].to_pylist()
        rows = table["row"].to_numpy() if "row" in table.column_names else np.full(len(texts), -1, np.int64)
        item = self._missing(texts, rows)
        tally = Tally()
        if item.texts:
            self._count_attempt(item)
            try:
                tally = self._compute(item)
            except Exception as raised:
                lost = lost_device(raised, f"{self._job.device} of node {self._node[:8]}")
                if lost is None:
                    raise
                sys.stderr.write(f"{lost}\n")
                sys.stderr.flush()
                os._exit(1)  # so that Ray gives the batch to another actor
        return {"done": [Done(len(texts), tally, self._actor, self._node).to_json()]}

    def _count_attempt(self, item: WorkItem) -> None:
        """Give up on a batch whose actors did not live to acknowledge it."""
        batch = hashlib.blake2b(item.keys.tobytes(), digest_size=16).digest()
        if import_ray().get(self._attempts.begin.remote(batch)) > MOST_FAILURES:
            names = ", ".join(item.name(i) for i in range(min(3, len(item.texts))))
            more = f" and {len(item.texts) - 3:,} more" if len(item.texts) > 3 else ""
            raise CacheError(
                f"{MOST_FAILURES} actors failed with {names}{more} in hand",
                "see Ray's logs: memory may have run out; else leave these texts out; what was committed is kept",
            )

    def _missing(self, texts: list[str], rows: Any) -> WorkItem:
        """Return the texts that some store lacks, once each."""
        keys = text_keys(texts, self._job.plan.prompt)
        absent = np.stack([index.find(keys) < 0 for index in self._indexes], axis=1)
        at = np.flatnonzero(absent.any(1))
        _, first = np.unique(keys[at].view(f"V{KEY_BYTES}"), return_index=True)
        return WorkItem(texts, rows, keys, absent).take(at[np.sort(first)])

    def _compute(self, item: WorkItem) -> Tally:
        if self._worker is None:
            self._worker = Worker(on_this_node(self._job, self._node[:8]), lambda texts, stage: None)
        self._worker.tally = Tally()
        self._worker.run(split_items([item], _ITEM_TEXTS))
        return self._worker.tally


def on_this_node(job: Job, node: str) -> Job:
    """Return the job with the folder of the checkpoint on this node.

    :raises CacheError: there is none, or its content is another than the driver's.
    """
    plan = job.plan
    backbone, folder = plan.backbone, plan.folder
    try:
        if not folder.is_dir():
            packaged = package_folder(backbone.package) if backbone.package else None
            remedy = "; or name a checkpoint folder on the shared file system"
            folder = packaged or locate(backbone.source, remedy)
        content = read_content(folder, backbone, plan.stores[0][0].parent)
    except CacheError as error:
        raise CacheError(f"node {node}: {error.problem}", error.remedy) from error
    for layer, (_, description) in zip(plan.layers, plan.stores, strict=True):
        if identity(content, backbone, layer) != description["origin"]:
            raise CacheError(
                f"node {node} has another {backbone.name} in {folder} than the driver",
                "copy the driver's checkpoint to every node, or name one on the shared file system",
            )
    return replace(job, plan=replace(plan, folder=folder))
