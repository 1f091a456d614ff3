"""Fewer rows of a dataset that still has its shape: a part of the tree, not a thin slice of all of it.

A random tenth of a deep dataset leaves most of its finest classes with one row or none, which can neither train nor be
scored; a run of whole classes in the file's order leaves one branch. So classes are taken whole-ish and from
everywhere, in *rings*: at every node the children are put in an order (by seeded hash), a finest class belongs to the
ring of its farthest step along its path from the root, and rings are taken from the inside out. The first k rings are
the tree with at most k children a node: every level branches from the start. Rows a class are bounded (`MOST`), since
150 rows of six classes say less about a hierarchy than 20 of fifty; within a class train, val and test keep their
shares. What is taken for a smaller limit is, but for the last few classes, part of what is taken for a larger one, so
stored features are used again.
"""

from __future__ import annotations

from dataclasses import replace

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
    tree = rows.frame.select(pl.col(name).alias(f"level{depth}") for depth, name in enumerate(rows.levels))
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
    numbers = pl.Series(rows.number(kept), dtype=pl.Int64)
    return replace(rows, frame=rows.frame[kept], numbers=numbers)


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
