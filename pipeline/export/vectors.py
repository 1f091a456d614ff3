"""Every row of a dataset as an embedding, to Parquet, or into a FAISS index with a table of what its ids mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

import cache
import data
from pipeline.errors import PipelineError
from pipeline.terminal import extras
from pipeline.workspace.features import LabelledFeatures
from pipeline.workspace.runs import Run

ADDED = ("row", "key", "embedding")
"""Columns beside those of the dataset."""


@dataclass(frozen=True)
class Rows:
    """Embeddings [n, dim] of rows of a dataset: `frame` has columns row, text, the levels, split and key (hex)."""

    frame: pl.DataFrame
    vectors: NDArray[np.float32]


def embedded_rows(run: Run, features: LabelledFeatures, dim: int, split: str | None = None) -> Rows:
    """Embed every row of a run's dataset, or of one split, in the dataset's order.

    :raises PipelineError: if texts were not embedded, or `dim` is no prefix of the head.
    :raises data.DataError: if there is no such split.
    """
    check_dim(run, dim)
    dataset = features.dataset
    rows = np.arange(len(dataset), dtype=np.int64) if split is None else dataset.split_rows(split)
    if not len(rows):
        raise PipelineError(f"{dataset.id} has no {split} row", "leave --split out, or name another")
    keys, gathered = features.gather(rows, "texts")
    vectors = run.load().embed(gathered, dim=dim)
    frame = dataset.frame[rows].insert_column(0, pl.Series("row", rows))
    return Rows(frame.with_columns(pl.Series("key", [bytes(key).hex() for key in keys])), vectors)


def check_dim(run: Run, dim: int) -> None:
    """Refuse what is no prefix of a run's head.

    :raises PipelineError: then.
    """
    if dim not in run.record["dims"]:
        dims = ", ".join(map(str, run.record["dims"]))
        raise PipelineError(f"--dim {dim} is no prefix of run {run.id}", f"use one of {dims}")


def check_columns(dataset: data.Dataset) -> None:
    """Refuse levels that are called like a column which an export adds.

    :raises PipelineError: then.
    """
    taken = [name for name in dataset.hierarchy.names if name in ADDED]
    if taken:
        raise PipelineError(
            f"level {taken[0]} of {dataset.id} is called like a column that an export adds ({', '.join(ADDED)})",
            f"rename that column of the dataset ({taken[0]}_label, say), then embed and fit again",
        )


def write_parquet(path: Path, rows: Rows) -> None:
    """Write row, text, levels, split, key and embedding (an array column of float32)."""
    width = rows.vectors.shape[1]
    frame = rows.frame.with_columns(pl.Series("embedding", rows.vectors, dtype=pl.Array(pl.Float32, width)))
    with cache.store.atomic_file(path) as partial:
        frame.write_parquet(partial)


def rows_file(index: Path) -> Path:
    """Where the table of an index's ids lies: beside it."""
    return index.with_name(f"{index.name}.rows.parquet")


def write_faiss(path: Path, rows: Rows) -> None:
    """Write an exact index of inner products, which are cosines here, whose ids are the dataset's rows.

    The table of ids is written first: an index that is there has its table.

    :raises PipelineError: if FAISS is not installed.
    """
    faiss = extras.faiss()
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(rows.vectors.shape[1]))
    index.add_with_ids(rows.vectors, rows.frame["row"].to_numpy())
    with cache.store.atomic_file(rows_file(path)) as partial:
        rows.frame.write_parquet(partial)
    with cache.store.atomic_file(path) as partial:
        faiss.write_index(index, str(partial))
