"""Every row of a dataset as vectors: to Parquet, one column per prefix, or into a FAISS index with a table of its ids.

Every prefix is normalised when it is written, so a database may rank by dot product, cosine or distance alike. On
request a prefix is written once more in fewer bytes: `int8`, with the scale that makes the codes a unit vector again,
or `binary`, the signs, eight to a byte, for a distance by differing bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import cache
import data
from pipeline.errors import PipelineError
from pipeline.retrieval.quantization import stored
from pipeline.terminal import extras
from pipeline.workspace.features import LabelledFeatures
from pipeline.workspace.outputs import write_table
from pipeline.workspace.records import file_digest
from pipeline.workspace.runs import Run

ROW, ID, KEY, EMBEDDING = "row", "id", "key", "embedding"
INDEX = "index"
"""In what a table of ids notes of its making: the digest of the index beside it."""


@dataclass(frozen=True)
class Rows:
    """Full embeddings, float32 [n, D], of rows of a dataset; `frame` has columns row, text, the levels, split, key."""

    frame: pl.DataFrame
    vectors: NDArray[np.float32]

    def prefix(self, dim: int) -> NDArray[np.float32]:
        """The first `dim` dimensions, normalised: float32 [n, dim]."""
        return stored(self.vectors, dim).codes.numpy()


def embedded_rows(run: Run, features: LabelledFeatures, split: str | None = None) -> Rows:
    """Embed every row of a run's dataset, or of one split, in the dataset's order.

    :raises PipelineError: if texts were not embedded, or the head gives what is no number.
    :raises data.DataError: if there is no such split.
    """
    dataset = features.dataset
    rows = np.arange(len(dataset), dtype=np.int64) if split is None else dataset.split_rows(split)
    if not len(rows):
        raise PipelineError(f"{dataset.id} has no {split} row", "leave --split out, or name another")
    keys, gathered = features.gather(rows, "texts")
    vectors = run.load().embed(gathered)
    broken = ~np.isfinite(vectors).all(axis=1)
    if broken.any():
        raise PipelineError(
            f"the head of run {run.id} gives NaN or infinity for row {rows[broken.argmax()]:,} of {dataset.id}",
            f"delete {run.folder} and run `pipeline fit-head` again",
        )
    frame = dataset.frame[rows].insert_column(0, pl.Series(ROW, rows))
    return Rows(frame.with_columns(pl.Series(KEY, [bytes(key).hex() for key in keys])), vectors)


def check_dims(run: Run, dims: Sequence[int]) -> None:
    """Refuse what is no prefix of a run's head.

    :raises PipelineError: then.
    """
    for dim in dims:
        if dim not in run.record["dims"]:
            known = ", ".join(map(str, run.record["dims"]))
            raise PipelineError(f"{dim} dimensions are no prefix of run {run.id}", f"use one of {known}")


def check_columns(dataset: data.Dataset) -> None:
    """Refuse levels that are called like a column which an export adds.

    :raises PipelineError: then.
    """
    taken = [name for name in dataset.hierarchy.names if name in (ROW, ID, KEY) or name.startswith(EMBEDDING)]
    if taken:
        raise PipelineError(
            f"level {taken[0]} of {dataset.id} is called like a column that an export adds",
            f"rename that column of the dataset ({taken[0]}_label, say), then embed and fit again",
        )


def write_parquet(
    path: Path, rows: Rows, dims: int | Sequence[int], quantized: Sequence[str], facts: Mapping[str, Any]
) -> list[str]:
    """Write text, levels, split and vectors; return the columns.

    :param dims: of one prefix: `embedding`, an array of float32, beside row and key; or of several: `embedding_64` and
        so on, beside an id.
    :param quantized: int8, binary; each adds a column per prefix of several: `embedding_64_int8`, to be multiplied by
        `embedding_64_int8_scale`; `embedding_64_binary` (uint8, the signs packed, the first dimension the highest bit).
    :param facts: what the file says of its making.
    """
    if isinstance(dims, int):
        frame = rows.frame.with_columns(pl.Series(EMBEDDING, rows.prefix(dims)))
    else:
        columns = [column for dim in dims for column in _forms(f"{EMBEDDING}_{dim}", rows.prefix(dim), quantized)]
        frame = rows.frame.drop(KEY).rename({ROW: ID}).with_columns(columns)
    write_table(path, frame, facts)
    return frame.columns


def _forms(name: str, units: NDArray[np.float32], quantized: Sequence[str]) -> Iterator[pl.Series]:
    """A prefix [n, dim] as it is, and in each number format asked for."""
    yield pl.Series(name, units)
    if "int8" in quantized:
        kept = stored(units, units.shape[1], "int8")
        assert kept.scales is not None
        yield pl.Series(f"{name}_int8", kept.codes.numpy())
        yield pl.Series(f"{name}_int8_scale", kept.scales.numpy())
    if "binary" in quantized:
        yield pl.Series(f"{name}_binary", np.packbits(units > 0, axis=1))


def rows_file(index: Path) -> Path:
    """Where the table of an index's ids lies: beside it."""
    return index.with_name(f"{index.name}.rows.parquet")


def write_faiss(path: Path, rows: Rows, dim: int, facts: Mapping[str, Any]) -> None:
    """Write an exact index of inner products, which are cosines here, whose ids are the dataset's rows.

    The table of ids gets its name first: an index that is there has its table.

    :param facts: what the table says of its making, beside the digest of the index.
    :raises PipelineError: if FAISS is not installed.
    """
    faiss = extras.needed("faiss")
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(dim))
    index.add_with_ids(rows.prefix(dim), rows.frame[ROW].to_numpy())
    with cache.store.atomic_file(path) as partial:
        faiss.write_index(index, str(partial))
        write_table(rows_file(path), rows.frame, {**facts, INDEX: file_digest(partial.read_bytes())})
