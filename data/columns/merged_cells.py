"""Labels that stand in the first row of their group alone, as the merged cells of a spreadsheet are saved.

Nothing is filled in unasked: an empty cell may as well mean that no finer label is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from data.checks import heads_groups
from data.errors import listed, quoted
from data.files.records import Records
from data.splits import FILE_SPLIT


def filled_down(records: Records, levels: Sequence[str], taken: Sequence[str]) -> tuple[Records, tuple[str, ...]]:
    """Give empty cells the label of the row above, and say in which columns.

    A finer label goes down only as long as the coarser ones stay: below a new one, an empty cell is a label not known.

    :param levels: the columns, coarsest first; none: those whose first row has a value and most others have none, from
        left to right.
    :param taken: columns that hold something else.
    """
    frame = records.frame.with_columns(
        pl.when(pl.col(pl.String).str.strip_chars() != "").then(pl.col(pl.String)).name.keep()
    )
    free = [name for name in frame.columns if name not in (*taken, FILE_SPLIT)]
    columns = list(levels) or [name for name in free if heads_groups(frame.get_column(name))]
    files = [FILE_SPLIT] if FILE_SPLIT in frame.columns else []
    for depth, column in enumerate(columns):
        above = pl.struct(*files, *columns[:depth]).rle_id() if files or depth else pl.lit(0)
        frame = frame.with_columns(pl.col(column).forward_fill().over(above))
    said = f"empty cells of {listed(map(quoted, columns), len(columns))} have the label of the row above"
    if not columns:
        said = "--fill-down changes nothing: no column has its labels in the first row of each group alone"
    return replace(records, frame=records.frame.with_columns(frame.select(columns))), (said,)
