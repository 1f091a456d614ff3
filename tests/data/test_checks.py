"""Each thing that can be wrong with rows: named with its rows, with a way out, and nothing else reported beside it."""

from dataclasses import replace

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.checks import LONGEST_TEXT, Rows, findings, raise_first
from data.errors import DataError

GOOD = [
    ("one", "a", "a1", "train"),
    ("two", "a", "a1", "train"),
    ("three", "b", "b1", "train"),
    ("four", "b", "b1", "train"),
    ("five", "a", "a1", "val"),
    ("six", "b", "b1", "test"),
]


def test_nothing_is_said_of_good_rows(rows_of):
    assert findings(rows_of(*GOOD)) == ()


@pytest.mark.parametrize(
    ("bad", "check", "problem", "remedy", "numbers"),
    [
        ([("", "a", "a1", "train")], "empty-text", "made, row 7: the text is empty", "remove", (7,)),
        (
            [(" \t", "a", "a1", "train"), (None, "a", "a1", "val")],
            "empty-text",
            "rows 7, 8: the text",
            "remove",
            (7, 8),
        ),
        ([("\u200b\x1b\ufeff ", "a", "a1", "val")], "empty-text", "row 7: the text is empty", "remove", (7,)),
        (
            [("x" * (LONGEST_TEXT + 1), "a", "a1", "train")],
            "long-text",
            "row 7: a text of 1,000,001",
            "quotation",
            (7,),
        ),
        ([("x", None, "a1", "val")], "missing-label", "row 7: no label in column coarse", "--drop-incomplete", (7,)),
        ([("x", "a", "a1", "Holdout")], "unknown-split", "row 7: split is 'Holdout'", "train, val, test", (7,)),
        ([("x", "a", "a1", None)], "unknown-split", "row 7: split is none", "remove the column", (7,)),
        (
            [("x", "b", "a1", "train")],
            "two-parents",
            "1 label under two parents: fine 'a1' under 'a' (row 1), 'b' (row 7)",
            "--qualify-labels",
            (1, 7),
        ),
        (
            [("x", "A ", "a1", "train")],
            "two-parents",
            "fine 'a1' under 'A ' (row 7), 'a' (row 1)",
            "differ only in case, spacing or spelling of one character or number: write them alike",
            (1, 7),
        ),
    ],
)
def test_each_error(rows_of, bad, check, problem, remedy, numbers):
    found = findings(rows_of(*GOOD, *bad))
    assert [one.check for one in found if one.severity == "error"] == [check]
    assert problem in found[0].problem and remedy in found[0].remedy
    assert found[0].rows == numbers
    with pytest.raises(DataError) as caught:
        raise_first(found)
    assert str(caught.value) == found[0].problem and caught.value.remedy.startswith(found[0].remedy)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_dataset_without_training_or_test_rows_is_an_error(rows_of, split):
    found = findings(rows_of(*(row for row in GOOD if row[-1] != split)))
    assert [(one.check, one.problem) for one in found if one.severity == "error"] == [
        ("empty-split", f"made: no row has split {split}")
    ]


def test_a_dataset_without_validation_rows_is_a_warning(rows_of):
    found = findings(rows_of(*(row for row in GOOD if row[-1] != "val")))
    assert [(one.severity, one.check) for one in found] == [("warning", "empty-split")]
    assert "give some rows split val" in found[0].remedy


def test_no_rows_at_all(rows_of):
    assert [(one.severity, one.check) for one in findings(rows_of())] == [("error", "rows")]


@pytest.mark.parametrize(
    ("levels", "said"), [((), "no level"), (("fine", "fine"), "twice"), (("split", "fine"), "called split")]
)
def test_columns_that_cannot_be_levels(rows_of, levels, said):
    rows = rows_of(*GOOD)
    found = findings(type(rows)("made", rows.frame, levels))
    assert [one.check for one in found] == ["levels"] and said in found[0].problem


@pytest.mark.parametrize(
    ("more", "check", "problem"),
    [
        ([("x", "a", None, "val")], "uneven-depth", "1 of 7 rows has no label of level fine"),
        ([("x", "a", "a2", "train")], "one-training-row", "1 class ('a2') of level fine with a single training row"),
        ([("x", "a", "a2", "test")], "unseen-class", "1 class ('a2') of level fine in test and never in train"),
        ([("one", "a", "a1", "train")], "same-text", "1 text on several rows with the same labels (row 1: 'one')"),
        ([("one", "b", "b1", "train")], "contradiction", "1 text on several rows with different labels"),
        ([("one", "a", "a1", "test")], "two-splits", "1 text in two splits"),
        ([("\uff2fNE ", "a", "a1", "test")], "alike-splits", "1 text in two splits, but for case and spacing"),
        ([("x", "a", "A1 ", "train"), ("y", "a", "A1 ", "train")], "similar-labels", "2 classes ('A1 ', 'a1')"),
    ],
)
def test_each_warning(rows_of, more, check, problem):
    found = findings(rows_of(*GOOD, *more))
    assert {one.severity for one in found} == {"warning"}
    assert problem in next(one for one in found if one.check == check).problem
    raise_first(found)


def test_only_a_split_that_was_given_can_be_changed(rows_of):
    """A file without a column of splits was told to move rows to train."""
    rows = rows_of(*GOOD, ("x", "a", "a2", "test"))
    given, made = (
        next(one for one in findings(replace(rows, made_splits=made)) if one.check == "unseen-class")
        for made in (False, True)
    )
    assert "move rows to train" in given.remedy
    assert "move" not in made.remedy and "chance" in made.remedy


def test_all_faults_are_reported_at_once_errors_first(rows_of):
    found = findings(
        rows_of(*GOOD, ("", "a", "a1", "train"), ("x", None, "a1", "nowhere"), ("one", "a", "a1", "train"))
    )
    assert [one.check for one in found] == ["empty-text", "missing-label", "unknown-split", "same-text"]
    with pytest.raises(DataError, match=r"empty \(and 2 more errors: `pipeline data check`.* says all\)"):
        raise_first(found)
    assert found[0].to_dict() == {
        "severity": "error",
        "check": "empty-text",
        "problem": "made, row 7: the text is empty",
        "remedy": "fill or remove it",
        "count": 1,
        "rows": [7],
    }


def test_many_rows_are_counted_and_the_first_named(rows_of):
    found = findings(rows_of(*GOOD, *[("", "a", "a1", "train")] * 2_000))
    assert "rows 7, 8, 9, 10, 11 and 1,995 more" in found[0].problem
    assert found[0].count == 2_000 and len(found[0].rows) == 10


@pytest.mark.parametrize("names", [("row", "label"), ("train", "test"), ("labels", "splits"), ("class", "parent")])
def test_levels_may_be_called_anything(rows_of, names):
    rows = rows_of(*GOOD, ("one", "b", "b1", "train"), ("z", "b", "b2", "test"), levels=names)
    assert {one.check for one in findings(rows)} == {"contradiction", "unseen-class"}


CELL = st.none() | st.sampled_from(["", " ", "a", "b", "train", "test", "val", "x\ny", "é" * 100])


@given(st.lists(st.tuples(CELL, CELL, CELL, CELL), max_size=12))
def test_any_rows_at_all_give_findings_of_one_line_each(rows):
    schema = dict.fromkeys(("text", "coarse", "fine", "split"), pl.String)
    for one in findings(Rows("made", pl.DataFrame(rows, schema=schema, orient="row"), ("coarse", "fine"))):
        assert "\n" not in one.problem and "\n" not in one.remedy
        assert one.problem and one.remedy and len(one.problem) < 1_000
