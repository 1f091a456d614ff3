"""The tree read off rows against one made of dicts; broken trees found whatever the order of rows."""

from collections import defaultdict

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import DataError
from data.hierarchy import Hierarchy, class_indices, find_conflicts, qualified

LABEL = st.text(alphabet="ab1é ", min_size=1, max_size=3)
NAMES = ["top", "mid", "low"]


def table(rows):
    return pl.DataFrame(rows, schema=dict.fromkeys(NAMES, pl.String), orient="row")


@st.composite
def trees(draw):
    """Rows of three levels whose every label has one parent."""
    above, mids = {}, draw(st.lists(LABEL, min_size=1, max_size=6, unique=True))
    for mid in mids:
        above[mid] = draw(LABEL)
    lows = {low: draw(st.sampled_from(mids)) for low in draw(st.lists(LABEL, min_size=1, max_size=10, unique=True))}
    rows = [(above[mid], mid, low) for low, mid in lows.items()]
    return draw(st.lists(st.sampled_from(rows), min_size=1, max_size=30))


@given(trees())
def test_classes_parents_and_labels_are_those_of_the_rows(rows):
    hierarchy = Hierarchy.from_frame(table(rows), NAMES)
    for level in range(3):
        assert hierarchy.classes[level] == tuple(sorted({row[level] for row in rows}))
    for level in range(2):
        found = {
            (hierarchy.classes[level][parent], hierarchy.classes[level + 1][child])
            for child, parent in enumerate(hierarchy.parents[level])
        }
        assert found == {(row[level], row[level + 1]) for row in rows}
        children = np.array([sum(pair[0] == name for pair in found) for name in hierarchy.classes[level]])
        assert np.array_equal(hierarchy.children(level), children)
    labels = hierarchy.labels(table(rows))
    assert labels.dtype == np.int64 and labels.shape == (len(rows), 3)
    back = [tuple(hierarchy.classes[level][index] for level, index in enumerate(row)) for row in labels]
    assert back == rows


@given(trees(), st.data())
def test_rows_cut_at_any_depth_have_minus_one_below(rows, data):
    cut = [row[: (depth := data.draw(st.integers(1, 3)))] + (None,) * (3 - depth) for row in rows]
    hierarchy = Hierarchy.from_frame(table(cut), NAMES)
    for level in range(3):
        assert hierarchy.classes[level] == tuple(sorted({row[level] for row in cut} - {None}))
    labels = hierarchy.labels(table(cut))
    assert [
        tuple(None if index < 0 else hierarchy.classes[level][index] for level, index in enumerate(row))
        for row in labels
    ] == cut
    assert (labels >= -1).all()


@given(trees(), st.randoms())
def test_the_order_of_rows_does_not_matter(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert Hierarchy.from_frame(table(rows), NAMES) == Hierarchy.from_frame(table(shuffled), NAMES)
    assert hash(Hierarchy.from_frame(table(rows), NAMES)) == hash(Hierarchy.from_frame(table(shuffled), NAMES))


@given(st.lists(st.tuples(*[st.none() | st.sampled_from("abc")] * 3), min_size=1, max_size=12))
def test_conflicts_are_exactly_the_labels_with_two_parents(rows):
    expected = []
    for level in (1, 2):
        parents = defaultdict(dict)
        for number, row in enumerate(rows):
            if row[level] is not None and row[level - 1] is not None:
                parents[row[level]].setdefault(row[level - 1], number)
        expected += [
            (level, label, tuple(sorted(known)), tuple(known[name] for name in sorted(known)))
            for label, known in sorted(parents.items())
            if len(known) > 1
        ]
    found = find_conflicts(table(rows), NAMES)
    assert [(one.level, one.label, one.parents, one.rows) for one in found] == expected


@given(st.lists(st.tuples(*[st.sampled_from("abc")] * 3), min_size=1, max_size=20))
def test_qualified_labels_always_make_a_tree_and_keep_the_paths_apart(rows):
    frame = qualified(table(rows), NAMES)
    hierarchy = Hierarchy.from_frame(frame, NAMES)
    assert hierarchy.classes[2] == tuple(sorted({"/".join(row) for row in rows}))


def test_a_broken_tree_is_refused_with_labels_parents_and_rows():
    frame = table([("a", "x", "1"), ("b", "y", "2"), ("b", "x", "3")])
    with pytest.raises(DataError) as caught:
        Hierarchy.from_frame(frame, NAMES)
    assert str(caught.value) == "1 label under two parents: mid 'x' under 'a' (row 1), 'b' (row 3)"
    assert "--qualify-labels" in caught.value.remedy


@pytest.mark.parametrize(
    ("names", "classes", "parents", "said"),
    [
        (("a", "b"), (("x",), ("y",)), (), "1 parent array|0 parent arrays"),
        (("a", "b"), (("x",),), ([0],), "shape|class list"),
        (("a", "b"), (("x",), ("z", "y")), ([0, 0],), "not sorted"),
        (("a", "b"), (("x",), ("y", "y")), ([0, 0],), "not sorted"),
        (("a", "b"), (("x",), ("y", "z")), ([0],), "shape"),
        (("a", "b"), (("x",), ("y", "z")), ([0, 1],), "outside"),
        (("a", "b"), (("x",), ("y", "z")), ([0, -1],), "outside"),
    ],
)
def test_a_hierarchy_whose_parts_disagree_is_refused(names, classes, parents, said):
    with pytest.raises(DataError, match=said):
        Hierarchy(names, classes, tuple(np.array(array) for array in parents))


def test_its_arrays_cannot_be_changed():
    given_array = np.array([0, 0])
    hierarchy = Hierarchy(("a", "b"), (("x",), ("y", "z")), (given_array,))
    with pytest.raises(ValueError, match="read-only"):
        hierarchy.parents[0][0] = 1
    given_array[0] = 7
    assert hierarchy.parents[0].tolist() == [0, 0]


def test_a_label_that_is_no_class_is_refused():
    with pytest.raises(DataError, match="'q' is not a class"):
        class_indices(pl.Series("mid", ["x", "q"]), ("x",))


def test_qualified_labels_that_are_still_alike_are_not_told_to_be_qualified():
    frame = qualified(pl.DataFrame({"top": ["a", "a/b"], "leaf": ["b/c", "c"]}), ("top", "leaf"))
    with pytest.raises(DataError, match="'a/b/c' under 'a'") as caught:
        Hierarchy.from_frame(frame, ("top", "leaf"))
    assert "--qualify-labels" not in caught.value.remedy
    assert "slash" in caught.value.remedy
