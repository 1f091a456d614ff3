"""A smaller dataset with the shape of the whole hierarchy: fewer classes, not fewer rows of every class.

A random tenth of a deep dataset leaves most of its finest classes with one row or none, which can be neither trained
nor scored; the first tenth of the file is often one branch. So some classes are taken, with most of their rows, from
all branches. At every node the children are ordered by a seeded hash. The ring of a finest class is the largest
position along its path from the root, and rings are taken in ascending order: the first k rings are the tree with at
most k children per node, so every level branches from the start. A text that stops at a coarser label counts as a
finest class of its own below that label. Rows per class are bounded (`MOST`): 20 rows of fifty classes say more about a
hierarchy than 150 rows of six. Within a class train, val and test keep their shares. A smaller limit takes, but for
the last few classes, a subset of what a larger one takes, so stored features are reused.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import polars as pl

from data.checks import Rows
from data.errors import DataError
from data.splits import SPLITS, unit_hash

MOST = 20
"""Rows of one finest class when the limit is ample."""

LEAST = 5
"""Rows of one finest class when it is tight: train, val and test can each have one."""


def limited(rows: Rows, limit: int, seed: int = 42) -> Rows:
    """Return at most `limit` of `rows`, in their order; all of them if they are no more than that.

    `rows` must have passed the checks.

    :raises DataError: if `limit` is too small for two classes, or for a row of train and of test.
    """
    if limit < 2 * LEAST:
        raise DataError(f"a limit of {limit} rows leaves no hierarchy", f"give --limit {2 * LEAST} or more")
    if rows.frame.height <= limit:
        return rows
    cap = min(MOST, max(LEAST, limit // 3 ** len(rows.levels)))
    tree = _full_depth(rows.frame.select(pl.col(name).alias(f"level{depth}") for depth, name in enumerate(rows.levels)))
    finest = tree.columns[-1]
    table = _places(rows, tree.get_column(finest), seed).join(_class_order(tree, seed), on=finest)
    first = table.filter(pl.col("place") < cap).sort("order")
    if first.height <= limit:
        chosen = table.sort("place", "order").head(limit)
    else:
        last_class = first.get_column("order")[limit]
        chosen = first.filter(pl.col("order") < last_class)
    kept = chosen.get_column("row").sort()
    for split in ("train", "test"):
        if split not in rows.frame.get_column("split").gather(kept):
            raise DataError(f"{rows.place}: a limit of {limit} rows leaves no {split} row", "give a larger --limit")
    numbers = pl.Series(rows.number(kept))
    return replace(rows, frame=rows.frame[kept], numbers=numbers)


def _full_depth(tree: pl.DataFrame) -> pl.DataFrame:
    """Return `tree` with a class of its own in place of every missing label, below the last known one."""
    for coarse, fine in pairwise(tree.columns):
        tree = tree.with_columns(pl.coalesce(fine, pl.concat_str(coarse, pl.lit("\0"))))
    return tree


def _places(rows: Rows, finest: pl.Series, seed: int) -> pl.DataFrame:
    """Return for each row its label of `finest` and its place in that class: the order in which rows are taken.

    The first of each split come first, then the splits keep their shares; within a split a seeded hash decides.
    """
    hashes = pl.Series("hash", [unit_hash(text, seed) for text in rows.frame.get_column("text")])
    rank = pl.struct("hash", "row").rank("ordinal").over(finest.name, "split") - 1
    return (
        rows.frame.select(finest, "split")
        .with_row_index("row")
        .with_columns(hashes)
        .with_columns(rank.alias("rank"), pl.len().over(finest.name, "split").alias("size"))
        .with_columns(pl.col("split").replace_strict(list(SPLITS), [0, 1, 2]).alias("turn"))
        .sort(finest.name, pl.col("rank") / pl.col("size"), "turn")
        .select("row", finest.name, pl.int_range(pl.len()).over(finest.name).alias("place"))
    )


def _class_order(tree: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Return every finest label with its place in the order of rings; within a ring, near the root's first first.

    `tree`: columns ``level0``, ``level1``, ... of labels.
    """
    levels, ranks = tree.columns, []
    paths = tree.unique().sort(levels)
    for depth, level in enumerate(levels):
        upper = levels[:depth]
        nodes = paths.select(*upper, level).unique(maintain_order=True)
        names = nodes.select(pl.concat_str(pl.all(), separator="\n")).to_series()
        nodes = nodes.with_columns(pl.Series("hash", [unit_hash(name, seed) for name in names]))
        place = pl.struct("hash", level).rank("ordinal")
        ranks.append(f"rank{depth}")
        nodes = nodes.with_columns((place.over(upper) if upper else place).alias(ranks[-1]))
        paths = paths.join(nodes.drop("hash"), on=[*upper, level])
    by_ring = (pl.max_horizontal(ranks), pl.sum_horizontal(ranks), *(-pl.col(rank).cast(pl.Int64) for rank in ranks))
    return paths.sort(*by_ring).select(levels[-1]).with_row_index("order")
