"""Texts become pieces of work beside where they are read: keys are looked up there, and only what is missing travels.

Ray Data deals out the parts of the files; a task reads some row groups, hashes the texts and asks the stores' key
indexes, which lie once a node in Ray's shared memory (24 bytes a stored row). What is left is a *piece*: the missing
texts of a batch, once each, with their keys. A text that repeats one of another piece is sent twice, computed twice and
stored twice; the row in the first shard counts, and `cache compact` drops the other. The alternative, one process that
remembers every key, is what the local engine does; it would make all nodes wait for one. Row groups are read here and
not by `ray.data.read_parquet`, which reads a file in one task, knows no row's number, and moves every text to another
task to be looked up.
"""

from __future__ import annotations

import queue
import threading
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cache.cluster.connection import import_ray, quiet_data, reason_of
from cache.cluster.parquet import Corpus
from cache.errors import CacheError
from cache.lookup import check_texts
from cache.store.hashing import KEY_BYTES, text_keys
from cache.workers.background import put_until_stopped
from cache.workers.work_items import WorkItem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from cache.store.store import FeatureStore

MOST_TEXTS, LEAST_TEXTS = 1 << 14, 1 << 8
_PIECE_CHARACTERS = 1 << 22
_BYTES_A_TEXT = 24  # what a text has at least in a piece: a block of Ray Data ends as soon as it has so many a text
_SMALL_BYTES = 1 << 14
_PIECES_A_PART = 4
_SHARE_OF_A_PROCESSOR = 0.25
_TABLE_ROWS = 1 << 16
_CLOSING_SECONDS = 2.0


@dataclass(frozen=True)
class Wanted:
    """What a task that looks texts up needs: the stores' indexes, by reference; `size` texts are a batch."""

    indexes: tuple[Any, ...]
    prompt: str
    size: int
    column: str = "text"
    filesystem: Any = None


def piece_size(texts: int, actors: int) -> int:
    """Return how many texts a piece should have: so many that packing pays, so few that every actor gets several."""
    return int(np.clip(-(-texts // (8 * max(1, actors))), LEAST_TEXTS, MOST_TEXTS))


@dataclass(frozen=True)
class Distinct:
    """Texts that the driver has, each once; `rows` are the places where they first stand."""

    texts: list[str]
    rows: list[int]

    @classmethod
    def of(cls, texts: Sequence[str]) -> Distinct:
        """Leave out what repeats.

        :raises CacheError: a text is empty or no string.
        """
        check_texts(list(texts), 0)
        first: dict[str, int] = {}
        for row, text in enumerate(texts):
            first.setdefault(text, row)
        return cls(list(first), list(first.values()))


def pieces(texts: Corpus | Distinct, stores: Sequence[FeatureStore], prompt: str, size: int, readers: int) -> Any:
    """Return the Ray dataset whose rows are pieces of `size` texts at most; nothing is read before it is iterated.

    :param readers: how many tasks may read at once. Each takes a quarter of a processor in Ray's books: a task that has
        read ahead waits for its reader without letting go of its share, and if such tasks held every processor, the one
        that makes a lost node's blocks again would wait for them, and they for it.
    """
    ray, data = import_ray(), quiet_data()
    indexes = tuple(ray.put(store.index) for store in stores)
    context = data.DataContext.get_current()
    before, context.target_max_block_size = context.target_max_block_size, _BYTES_A_TEXT * size
    options = {
        "batch_format": "pyarrow",
        "zero_copy_batch": True,
        "num_cpus": _SHARE_OF_A_PROCESSOR,
        "compute": data.TaskPoolStrategy(size=readers),
    }
    try:
        if isinstance(texts, Corpus):
            parts = [asdict(part) for part in texts.parts(_PIECES_A_PART * size)]
            wanted = Wanted(indexes, prompt, size, texts.column, texts.filesystem)
            source = data.from_items(parts, override_num_blocks=len(parts))
            return source.map_batches(read_parts, fn_kwargs={"wanted": wanted}, batch_size=None, **options)
        wanted = Wanted(indexes, prompt, size)
        source = data.from_arrow(_tables(texts))
        return source.map_batches(look_up_rows, fn_kwargs={"wanted": wanted}, batch_size=size, **options)
    finally:
        context.target_max_block_size = before


def _tables(given: Distinct) -> list[Any]:
    import pyarrow as pa

    return [
        pa.table(
            {
                "text": pa.array(given.texts[first : first + _TABLE_ROWS], pa.large_string()),
                "row": given.rows[first : first + _TABLE_ROWS],
            }
        )
        for first in range(0, len(given.texts), _TABLE_ROWS)
    ]


def look_up_rows(table: Any, wanted: Wanted) -> Any:
    """Run in a task: return the pieces of texts that the driver had."""
    return _look_up(table["text"].to_pylist(), table["row"].to_numpy(), wanted)


def read_parts(table: Any, wanted: Wanted) -> Iterator[Any]:
    """Run in a task: read parts of a corpus, and yield the pieces of each batch of their rows.

    :raises CacheError: a text that cannot be embedded, by file and row (the first is row 1).
    """
    from pyarrow import parquet

    for part in table.to_pylist():
        row = part["first"]
        with parquet.ParquetFile(part["path"], filesystem=wanted.filesystem) as file:
            for batch in file.iter_batches(wanted.size, row_groups=part["groups"], columns=[wanted.column]):
                texts = batch.column(0).to_pylist()
                _check_read(texts, part["path"], row + 1)
                yield _look_up(texts, np.full(len(texts), -1, np.int64), wanted)
                row += len(texts)


def _check_read(texts: list[Any], path: str, first: int) -> None:
    try:
        check_texts(texts, first)
    except CacheError as error:
        _, row, what = error.problem.split(" ", 2)
        raise CacheError(f"{path}, row {row}: the text {what}", error.remedy) from None


def _look_up(texts: list[str], rows: NDArray[np.int64], wanted: Wanted) -> Any:
    """Return the pieces of a batch, one row each; the first says how many texts the batch had."""
    import pyarrow as pa

    keys = text_keys(texts, wanted.prompt)
    indexes = import_ray().get(list(wanted.indexes))  # mapped from shared memory, not copied
    absent = np.stack([index.find(keys) < 0 for index in indexes], axis=1)
    at = np.flatnonzero(absent.any(1))
    _, first = np.unique(keys[at].view(f"V{KEY_BYTES}"), return_index=True)
    at = at[np.sort(first)]
    made = [_row(texts, rows, keys, absent, part) for part in _parts(texts, at)] or [_row([], rows, keys, absent, at)]
    seen = [len(texts), *[0] * (len(made) - 1)]
    return pa.Table.from_pylist([{"seen": count, **row} for count, row in zip(seen, made, strict=True)], _schema())


def _schema() -> Any:
    import pyarrow as pa

    binary = pa.large_binary()
    return pa.schema(
        {
            "seen": pa.int64(),
            "texts": pa.large_list(pa.large_string()),
            "rows": binary,
            "keys": binary,
            "absent": binary,
        }
    )


def _row(texts: list[str], rows: Any, keys: Any, absent: Any, at: Any) -> dict[str, Any]:
    chosen = [texts[i] for i in at] if texts else []
    return {
        "texts": chosen,
        "rows": rows[at].astype("<i8").tobytes(),
        "keys": keys[at].tobytes(),
        "absent": absent[at].tobytes(),
    }


def _parts(texts: list[str], at: Any) -> Iterator[Any]:
    """Cut where a piece would have too many characters."""
    if not len(at):
        return
    ends = np.cumsum([len(texts[i]) for i in at])
    yield from (part for part in np.split(at, np.flatnonzero(np.diff(ends // _PIECE_CHARACTERS)) + 1) if len(part))


def chunks_of(table: Any, number: int) -> tuple[list[WorkItem], int]:
    """Return the texts of a block of pieces, as `number`, and how many texts were looked up for it."""
    chunks = []
    for row in table.to_pylist():
        if row["texts"]:
            keys = np.frombuffer(row["keys"], np.uint8).reshape(-1, KEY_BYTES)
            absent = np.frombuffer(row["absent"], np.bool_).reshape(len(keys), -1)
            chunks.append(WorkItem(row["texts"], np.frombuffer(row["rows"], "<i8"), keys, absent, number))
    return chunks, sum(table["seen"].to_pylist())


@dataclass(frozen=True)
class Block:
    """Pieces that lie in Ray's object store; `empty` if none of the `seen` texts looked up for them is missing."""

    reference: Any
    seen: int
    empty: bool


class Feed:
    """Blocks of pieces, made a few ahead in a thread: `poll` gives the next one, if there is one already."""

    def __init__(self, dataset: Any, depth: int) -> None:
        """Start reading."""
        self._line: queue.Queue[Block | BaseException | None] = queue.Queue(depth)
        self._stopped = threading.Event()
        self.exhausted = False
        work = (dataset, self._line, self._stopped)
        self._thread = threading.Thread(target=_read, args=work, name="feed", daemon=True)
        self._thread.start()

    def poll(self, seconds: float) -> Block | None:
        """Return the next block, or None where none comes within `seconds`, or none is left: then it is `exhausted`.

        :raises CacheError: what reading raised.
        """
        if self.exhausted:
            return None
        try:
            item = self._line.get(timeout=seconds) if seconds else self._line.get_nowait()
        except queue.Empty:
            return None
        if isinstance(item, BaseException):
            raise item
        self.exhausted = item is None
        return item

    def close(self) -> None:
        """Stop reading."""
        self._stopped.set()
        self._thread.join(_CLOSING_SECONDS)


def _read(dataset: Any, line: queue.Queue[Any], stopped: threading.Event) -> None:
    put = partial(put_until_stopped, line=line, stopped=stopped)
    try:
        ray = import_ray()
        for bundle in dataset.iter_internal_ref_bundles():
            for entry in bundle.blocks:
                put(_block(ray, entry))
            if stopped.is_set():
                return
        put(None)
    except BaseException as error:  # raised where blocks are polled
        put(_explained(error))


def _block(ray: Any, entry: Any) -> Block:
    """Look into a block that is too small to be worth sending, so that where nothing is missing no actor starts."""
    size = entry.metadata.size_bytes
    if size is not None and size <= _SMALL_BYTES:
        table = ray.get(entry.ref)
        if table.num_rows == 0 or not any(table["texts"].to_pylist()):
            return Block(None, sum(table["seen"].to_pylist()) if table.num_rows else 0, empty=True)
    return Block(entry.ref, 0, empty=False)


def _explained(error: BaseException) -> BaseException:
    found = reason_of(error)
    if isinstance(found, CacheError):
        return CacheError(found.problem, found.remedy)
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return CacheError(
        f"reading the texts failed: {(lines or [type(error).__name__])[-1].strip()[:300]}",
        "check that every node reads the files, then run again: what was committed is kept",
    )
