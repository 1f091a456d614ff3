"""A limited dataset: no more rows than asked for, and still a hierarchy that branches."""

from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.checks import Rows, findings
from data.errors import DataError
from data.hierarchy import Hierarchy
from data.sample import LEAST, MOST, limited

SPLITS = ["train"] * 7 + ["val"] + ["test"] * 2


def tree(top, mid, low, rows, names=("top", "mid", "low")):
    """Rows of a regular tree: children a node at each level, rows a finest class, splits 7:1:2."""
    made = [
        (f"text {a}.{b}.{c}.{number}", f"{a}", f"{a}.{b}", f"{a}.{b}.{c}", SPLITS[number % 10])
        for a in range(top)
        for b in range(mid)
        for c in range(low)
        for number in range(rows)
    ]
    return Rows("tree", pl.DataFrame(made, schema=["text", *names, "split"], orient="row"), names)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(10, 40), st.integers(2 * LEAST, 1_500))
def test_a_sample_is_an_ordered_part_that_fits_and_still_passes_the_checks(top, mid, low, rows, limit):
    whole = tree(top, mid, low, rows)
    part = limited(whole, limit)
    assert part.frame.height <= limit
    if whole.frame.height <= limit:
        assert part is whole
        return
    numbers = part.numbers.to_list()
    assert numbers == sorted(set(numbers))
    assert part.frame.equals(whole.frame[[number - 1 for number in numbers]])
    assert part.frame.height > limit - MOST
    assert not [one for one in findings(part) if one.severity == "error"]


def test_every_level_branches_from_the_start():
    whole = tree(6, 6, 6, 30)
    for limit, least in ((100, 2), (300, 2), (1_000, 3), (2_000, 4)):
        hierarchy = Hierarchy.from_frame(limited(whole, limit).frame, whole.levels)
        assert hierarchy.sizes[0] >= least
        assert hierarchy.children(0).mean() >= least / 2 + 0.5
        assert hierarchy.children(1).mean() >= 1.3


def test_a_small_sample_is_part_of_a_larger_one():
    whole = tree(6, 6, 6, 30)
    sizes = [600, 700, 1_000, 2_000, 3_000]
    for small, large in pairwise(sizes):
        texts = [set(limited(whole, limit).frame["text"]) for limit in (small, large)]
        assert texts[0] < texts[1]


def test_classes_are_whole_enough_and_keep_the_shares_of_their_splits():
    part = limited(tree(5, 5, 5, 50), 1_000).frame
    assert part.group_by("low").len()["len"].unique().to_list() == [MOST]
    counts = part["split"].value_counts().sort("split")["count"].to_list()
    assert [count / part.height for count in counts] == pytest.approx([0.2, 0.7, 0.1], abs=0.06)
    every = part.group_by("low").agg(pl.col("split").n_unique())
    assert every["split"].unique().to_list() == [3]


def test_the_draw_depends_on_the_texts_not_on_the_order_of_rows():
    whole = tree(4, 4, 4, 20)
    shuffled = Rows("tree", whole.frame.sample(fraction=1, shuffle=True, seed=1), whole.levels)
    assert set(limited(whole, 300).frame["text"]) == set(limited(shuffled, 300).frame["text"])
    assert set(limited(whole, 300, seed=1).frame["text"]) != set(limited(whole, 300).frame["text"])


def test_columns_may_have_any_name():
    for names in (("row", "hash", "rank"), ("size", "turn", "place"), ("order", "level0", "rank0")):
        assert limited(tree(3, 3, 3, 20, names), 200).frame.height > 150


def test_a_limit_that_leaves_a_split_empty_says_so():
    whole = tree(3, 3, 3, 20)
    last = pl.int_range(pl.len()) == pl.len() - 1
    rare = whole.frame.with_columns(pl.when(last).then(pl.lit("test")).otherwise(pl.lit("train")).alias("split"))
    with pytest.raises(DataError, match="a limit of 20 rows leaves no test row"):
        limited(Rows("tree", rare, whole.levels), 20)


def test_too_few_rows_for_a_hierarchy():
    for limit in (-1, 0, 2 * LEAST - 1):
        with pytest.raises(DataError, match="limit") as caught:
            limited(tree(2, 2, 2, 10), limit)
        assert "10 or more" in caught.value.remedy


def test_rows_of_uneven_depth_are_sampled_like_the_others():
    whole = tree(3, 3, 3, 20)
    cut = whole.frame.with_columns(
        low=pl.when(pl.col("low").str.ends_with("2")).then(None).otherwise("low"),
        mid=pl.when(pl.col("mid") == "2.2").then(None).otherwise("mid"),
    ).with_columns(low=pl.when(pl.col("mid").is_null()).then(None).otherwise("low"))
    part = limited(Rows("tree", cut, whole.levels), 200)
    assert part.frame.height <= 200
    assert 0 < part.frame.get_column("low").null_count() < part.frame.height
    assert not [one for one in findings(part) if one.severity == "error"]
