"""Labels that stand in the first row of their group alone: filled in when asked, and not below a new parent."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from data import Description, load
from data.columns.merged_cells import filled_down
from data.files.records import Records
from data.own_files import read_table

CELLS = st.sampled_from([None, "", "  ", "a", "b"])


def slowly(rows: list[tuple[str | None, ...]]) -> list[list[str | None]]:
    """A row after another: an empty cell has the label above it as long as nothing to its left has changed."""
    found: list[list[str | None]] = []
    for row in rows:
        above: list[str | None] = found[-1] if found else [None] * len(row)
        here: list[str | None] = []
        for depth, cell in enumerate(row):
            blank = cell is None or not cell.strip()
            here.append((above[depth] if found and here == above[:depth] else None) if blank else cell)
        found.append(here)
    return found


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=12))
def test_filling_is_what_one_does_by_hand(rows):
    frame = pl.DataFrame(rows, schema=dict.fromkeys("xyz", pl.String), orient="row")
    filled, _ = filled_down(Records("f", frame, pl.Series(range(len(rows)))), ("x", "y", "z"), ())
    assert [list(row) for row in filled.frame.rows()] == slowly(rows)


def test_with_nothing_to_fill_that_is_said(write):
    rows = "".join(f"text number {n},{'ab'[n % 2]}\n" for n in range(40))
    table = read_table(write("t.csv", f"text,level0\n{rows}"), Description(fill_down=True))
    assert [note for note in table.notes if "changes nothing: no column" in note]


def test_a_column_of_codes_is_filled_too(write):
    rows = "".join(f"thing number {n},{f'{10 + n // 8}{n // 4:02}' * (n % 4 == 0)}\n" for n in range(48))
    known = Description(fill_down=True, code="hs", digits=(2, 4))
    dataset = load(write("t.csv", f"text,hs\n{rows}"), description=known)
    assert dataset.frame["hs2"].to_list() == [str(10 + n // 8) for n in range(48)]
