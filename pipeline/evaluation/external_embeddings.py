"""Embeddings that were made elsewhere, by any model or API, put into the order of a dataset.

Two kinds of files: `.npy`, rows in the order that `pipeline data show DATASET --rows` prints; and `.parquet`, whose
vectors are joined by a column `text`, so that their order does not matter and further rows do no harm. Nothing is
unpickled. Numbers of one byte, as APIs give them for quantised embeddings, are taken as they are: int8 and uint8 become
float32 without a scale, which a cosine does not need if all dimensions share one. A byte may also hold eight signs:
that is said by the caller, for nothing in the numbers tells the one from the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import data
from pipeline.errors import PipelineError

Singles = NDArray[np.float32]

_BYTES = (np.dtype(np.int8), np.dtype(np.uint8))

_LOOKED_AT = 10_000
"""Rows in which repeated embeddings are counted."""


def read_embeddings(
    path: Path, dataset: data.Dataset, say: Callable[[str], None] = lambda line: None, *, bits: bool = False
) -> Singles:
    """Read the embeddings of every row of a dataset, float32 [n, D], in its order.

    :param path: a .npy file [n, D] of floats, int8 or uint8, or a .parquet file with one column of lists or arrays of
        such and a column `text`, or another that has every text; without any column of strings in order.
    :param say: told, a line each, that vectors are of whole numbers, which are nothing but zeros, and how many differ.
    :param bits: each byte holds the signs of eight dimensions, the first in the highest bit, as numpy.packbits puts
        them (uint8), or 128 less (int8): they become 1 and -1.
    :raises PipelineError: if the file cannot be read, does not go with the dataset, or holds NaN or infinity.
    """
    readers = {".npy": _read_npy, ".parquet": _read_parquet, ".safetensors": _read_safetensors}
    if path.suffix not in readers:
        raise PipelineError(
            f"{path} is none of .npy, .parquet and .safetensors",
            "save the embeddings with numpy.save, or as Parquet with a text and a list column",
        )
    found = readers[path.suffix](path, dataset)
    dtype = getattr(found, "dtype", None)
    if dtype is None or not (dtype.kind == "f" or dtype in _BYTES):
        raise PipelineError(
            f"{path} holds {dtype or 'several arrays'}, not floats, int8 or uint8", "save one array [n, D] of floats"
        )
    if bits:
        found = _signs(path, found)
    elif dtype in _BYTES:
        say(
            f"{path} holds {dtype}: taken as quantised embeddings, cast to float32, a dimension per byte (--bits: "
            "eight signs per byte); a zero point would have to be subtracted first"
        )
    with np.errstate(over="ignore"):
        vectors = np.asarray(found, dtype=np.float32)
    if vectors.ndim != 2 or not vectors.shape[-1] or len(vectors) != len(dataset):
        raise PipelineError(
            f"{path} has shape {tuple(vectors.shape)}, and {dataset.id} has {len(dataset):,} rows",
            f"give a vector for each row that `pipeline data show {dataset.id} --rows` prints, in that order",
        )
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(broken):
        raise PipelineError(
            f"{path}: {len(broken):,} embeddings are not finite in float32, the first that of row {broken[0] + 1} of "
            f"{dataset.id}: {dataset.texts[broken[0]][:60]!r}",
            "look for NaN or infinity where they were made",
        )
    empty = np.flatnonzero(~vectors.any(axis=1))
    if len(empty):
        say(
            f"warning: {path}: {len(empty):,} of {len(vectors):,} embeddings are all zeros, the first that of row "
            f"{empty[0] + 1} of {dataset.id}: {dataset.texts[empty[0]][:60]!r}; zeros are "
            "equally near to everything, so answers about them are accidents"
        )
    _say_repeated(path, vectors, dataset.texts, say)
    return vectors


def _signs(path: Path, packed: NDArray[Any]) -> NDArray[np.int8]:
    """Unpack bytes [n, B] into signs [n, 8 B]."""
    if packed.dtype not in _BYTES or packed.ndim != 2:
        raise PipelineError(
            f"{path} holds {packed.dtype} of shape {packed.shape}, not bits packed into bytes",
            "leave --bits out, or pack signs with numpy.packbits(vectors > 0, axis=1)",
        )
    whole = packed if packed.dtype == np.uint8 else (packed.astype(np.int16) + 128).astype(np.uint8)
    return np.unpackbits(whole, axis=1).astype(np.int8) * 2 - 1


def _say_repeated(path: Path, vectors: Singles, texts: Sequence[str], say: Callable[[str], None]) -> None:
    """Say where different texts share embeddings: a constant column, labels in place of vectors, a broken batch."""
    known = dict(zip(texts[:_LOOKED_AT], vectors[:_LOOKED_AT], strict=False))
    distinct = len({vector.tobytes() for vector in known.values()})
    if distinct <= len(known) / 2:
        which = f"the first {len(known):,}" if len(texts) > _LOOKED_AT else f"{len(known):,}"
        say(
            f"warning: {path}: {which} different texts have {distinct:,} different embeddings between them, so many "
            "answers are accidents: look where they were made"
        )


def _read_npy(path: Path, dataset: data.Dataset) -> Any:
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # whatever zip, numpy and Python's tokenizer make of a damaged header
        reason = " ".join(str(error).split())[:200]
        raise PipelineError(
            f"{path} is no array of numbers ({reason})", "save one array [n, D] of floats with numpy.save"
        ) from error
    if isinstance(vectors, np.memmap) and vectors.offset + vectors.nbytes != path.stat().st_size:
        raise PipelineError(
            f"{path} is damaged: its header gives another length than the file has", "write it again with numpy.save"
        )
    return vectors


def _read_safetensors(path: Path, dataset: data.Dataset) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            name = "embeddings" if "embeddings" in names else names[0] if len(names) == 1 else ""
            vectors = file.get_tensor(name) if name else None
    except (SafetensorError, OSError, TypeError) as error:
        raise PipelineError(f"{path} is no safetensors file that can be read ({error})", "write it again") from error
    if vectors is None:
        raise PipelineError(
            f"{path} has {len(names)} tensors: {', '.join(names[:5])}", "keep one, or call the vectors embeddings"
        )
    return vectors


def _read_parquet(path: Path, dataset: data.Dataset) -> Any:
    try:
        frame = pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        first = str(error).splitlines()[0]
        raise PipelineError(f"{path} is no Parquet file that can be read ({first})", "write it again") from error
    column = frame.get_column(_vector_column(path, frame))
    if not len(column):
        raise PipelineError(f"{path} has no row", "write a row for each text")
    if column.null_count():
        row = int(column.is_null().arg_true()[0]) + 1
        raise PipelineError(f"{path}: row {row} has no embedding", "leave the row out, or embed its text")
    lengths = (column.arr if isinstance(column.dtype, pl.Array) else column.list).len()
    other = lengths != lengths[0]
    if other.any():
        row = int(other.arg_true()[0])
        raise PipelineError(
            f"{path}: row {row + 1} has {lengths[row]} dimensions where row 1 has {lengths[0]}",
            "give every text an embedding of one length",
        )
    vectors = column.explode().to_numpy().reshape(len(column), -1)
    words = [name for name, kind in frame.schema.items() if kind == pl.String]
    wanted = set(dataset.texts)
    holding = ["text"] if "text" in frame.columns else [n for n in words if wanted <= set(frame.get_column(n))]
    if len(holding) == 1:
        return vectors[_rows_by_text(path, frame.get_column(holding[0]), vectors, dataset)]
    if words:
        raise PipelineError(
            f"{path} has no column text to join by, but {', '.join(holding or words)}, of which "
            f"{'each' if holding else 'none'} has every text",
            "name the texts' column text, or leave such columns out where rows are in the dataset's order",
        )
    if numbered := [name for name in frame.columns if _numbers_another_order(frame.get_column(name))]:
        raise PipelineError(
            f"{path} has no column text to join by, and its column {numbered[0]} numbers the rows in another order",
            f"sort the rows as the dataset has them, then leave {numbered[0]} out; or add a column text",
        )
    return vectors


def _numbers_another_order(column: pl.Series) -> bool:
    """Whether a column looks like ids of rows that were shuffled: whole numbers, each once, not ascending."""
    return column.dtype.is_integer() and column.n_unique() == len(column) and not column.is_sorted()


def _vector_column(path: Path, frame: pl.DataFrame) -> str:
    """Find the one column that holds vectors."""
    found = [
        name
        for name, kind in frame.schema.items()
        if isinstance(kind, pl.List | pl.Array)
        and kind.inner is not None
        and (kind.inner.is_float() or kind.inner in (pl.Int8, pl.UInt8))
    ]
    if "embedding" in found:
        return "embedding"
    if len(found) != 1:
        raise PipelineError(
            f"{path} has {len(found)} columns of lists of floats, int8 or uint8, in {', '.join(frame.columns)}",
            "name the vectors' column embedding",
        )
    return found[0]


def _rows_by_text(path: Path, texts: pl.Series, vectors: NDArray[Any], dataset: data.Dataset) -> Sequence[int]:
    """Find the file's row of each text of the dataset; a text may stand there twice with one and the same vector."""
    rows: dict[str, int] = {}
    for row, text in enumerate(texts):
        first = rows.setdefault(text, row)
        if first != row and not np.array_equal(vectors[first], vectors[row]):
            raise PipelineError(
                f"{path}: rows {first + 1} and {row + 1} have one text and two embeddings", "keep one of them"
            )
    missing = [(number, text) for number, text in enumerate(dataset.texts, start=1) if text not in rows]
    if missing:
        number, text = missing[0]
        raise PipelineError(
            f"{path} has no embedding for {len(missing):,} of {len(dataset):,} texts of {dataset.id}, "
            f"the first being row {number}: {text[:60]!r}",
            f"embed every text that `pipeline data show {dataset.id} --rows` prints",
        )
    return [rows[text] for text in dataset.texts]
