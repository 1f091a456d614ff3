"""A dataset is checked when it is made, and its id is the address of its content."""

import contextlib
import dataclasses

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import Dataset, Hierarchy, load
from data.checks import Rows
from data.errors import DataError

ROWS = [
    ("one", "a", "a1", "train"),
    ("two", "b", "b1", "train"),
    ("three", "a", "a2", "val"),
    ("four", "a", "a1", "test"),
    ("five", "b", "b1", "train"),
]
COLUMNS = ("text", "coarse", "fine", "split")
WORD = st.text(alphabet="abé 1", min_size=1, max_size=4).filter(str.strip)


def frame_of(rows):
    return pl.DataFrame(rows, schema=dict.fromkeys(COLUMNS, pl.String), orient="row")


def dataset_of(rows, name="made", levels=("coarse", "fine")):
    frame = frame_of(rows).rename(dict(zip(COLUMNS[1:3], levels, strict=True)))
    return Dataset.from_rows(Rows(name, frame, levels))


def test_what_a_dataset_gives():
    dataset = dataset_of(ROWS)
    assert len(dataset) == 5
    assert dataset.levels == ("coarse", "fine")
    assert dataset.texts == ["one", "two", "three", "four", "five"]
    assert dataset.labels.tolist() == [[0, 0], [1, 2], [0, 1], [0, 0], [1, 2]]
    assert dataset.labels.dtype == np.int64
    assert dataset.hierarchy.classes == (("a", "b"), ("a1", "a2", "b1"))
    assert [dataset.split_rows(split).tolist() for split in ("train", "val", "test")] == [[0, 1, 4], [2], [3]]
    assert dataset.split_rows("train").dtype == np.int64
    with pytest.raises(DataError, match="no split 'dev'"):
        dataset.split_rows("dev")


def test_a_missing_label_and_an_empty_word_differ_in_the_id_and_complete_rows_keep_theirs():
    uneven = dataset_of([*ROWS, ("six", "a", None, "train")])
    assert uneven.labels.tolist()[-1] == [0, -1]
    assert uneven.id != dataset_of([*ROWS, ("six", "a", "a1", "train")]).id
    for gap in [("six", None, "a1", "train"), ("six", None, None, "train")]:
        with pytest.raises(DataError, match="row 6: no label in column coarse"):
            dataset_of([*ROWS, gap])


def test_a_level_that_no_test_row_has_is_refused():
    rows = [row if row[3] != "test" else (*row[:2], None, row[3]) for row in ROWS]
    with pytest.raises(DataError, match="no test row has a label of level fine"):
        dataset_of(rows)


def test_it_cannot_be_changed():
    dataset = dataset_of(ROWS)
    with pytest.raises(dataclasses.FrozenInstanceError):
        dataset.name = "other"
    with pytest.raises(ValueError, match="read-only"):
        dataset.labels[0, 0] = 1


@st.composite
def two_level_rows(draw):
    fine = draw(st.lists(WORD, min_size=1, max_size=4, unique=True))
    paths = [(draw(st.sampled_from("xy")), one) for one in fine]
    splits = ["train", "test", *draw(st.lists(st.sampled_from(["train", "val", "test"]), max_size=6))]
    return [(draw(WORD), *draw(st.sampled_from(paths)), split) for split in splits]


@settings(max_examples=40)
@given(two_level_rows(), st.data())
def test_any_change_of_a_cell_the_order_or_a_name_changes_the_id(rows, data):
    made = dataset_of(rows)
    assert dataset_of(list(rows)).id == made.id
    assert dataset_of(rows, name="renamed").id != made.id
    assert dataset_of(rows, levels=("coarse", "finest")).id != made.id
    row, column = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.integers(0, 3))
    value = data.draw(WORD if column < 3 else st.sampled_from(["train", "val", "test"]))
    changed = [list(each) for each in rows]
    changed[row][column] = value
    swapped = [rows[1], rows[0], *rows[2:]]
    for other in (changed, swapped):
        if [tuple(each) for each in other] == rows:
            continue
        with contextlib.suppress(DataError):  # the change may have broken the tree or emptied a split
            assert dataset_of(other).id != made.id


def test_cells_that_flow_into_one_another_are_told_apart():
    one, other = list(ROWS), list(ROWS)
    one[0], one[1] = ("ab", "a", "a1", "train"), ("c", "b", "b1", "train")
    other[0], other[1] = ("a", "a", "a1", "train"), ("bc", "b", "b1", "train")
    assert dataset_of(one).id != dataset_of(other).id


def test_the_id_is_the_same_in_every_process_and_version():
    assert dataset_of(ROWS).id == "made-6ebdf78f0244"


@pytest.mark.parametrize(
    ("name", "start"), [("my data (v2)", "my-data-v2-"), ("../x", "x-"), ("", "dataset-"), ("é", "dataset-")]
)
def test_the_id_is_one_plain_folder_name(name, start):
    assert dataset_of(ROWS, name=name).id.startswith(start)


def test_the_id_is_the_same_whatever_the_format(write, tmp_path):
    text = "text,level0,level1,split\n" + "".join(f"{row[0]},{row[1]},{row[2]},{row[3]}\n" for row in ROWS)
    expected = load(write("same.csv", text)).id
    frame = load(str(tmp_path / "same.csv")).frame
    frame.write_parquet(tmp_path / "same.parquet")
    frame.write_ndjson(tmp_path / "same.jsonl")
    assert load(str(tmp_path / "same.parquet")).id == load(str(tmp_path / "same.jsonl")).id == expected


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"frame": frame_of(ROWS).select("text", "fine", "coarse", "split")}, "columns"),
        ({"frame": frame_of(ROWS).with_columns(pl.lit(1).alias("split"))}, "columns"),
        ({"frame": frame_of([*ROWS, ("", "a", "a1", "test")])}, "row 6: the text is empty"),
        ({"frame": frame_of([*ROWS, ("six", "b", "a1", "test")])}, "under two parents"),
        ({"frame": frame_of([*ROWS, ("six", "b", "b2", "test")])}, "hierarchy is not that of the rows"),
        ({"hierarchy": Hierarchy(("coarse", "fine"), (("a",), ("a1",)), (np.array([0]),))}, "not that of the rows"),
    ],
)
def test_what_is_not_whole_cannot_be_made(change, said):
    with pytest.raises(DataError, match=said):
        dataclasses.replace(dataset_of(ROWS), **change)
