"""Labels as an export has them: as long as the texts, in columns of several words, paths, numbers with a point."""

from __future__ import annotations

import re
import shlex

import pytest

from data import DataError, load

LONG = [f"Diseases of the {organ} and of the tissue that surrounds it" for organ in ("eye", "ear", "skin", "heart")]


def table(rows, *names):
    return "\n".join([";".join(names), *(";".join(row) for row in rows)]) + "\n"


def rows(n=160):
    return [(f"finding {i} of the left side", LONG[i % 4], f"{LONG[i % 4]}, part {i % 16}") for i in range(n)]


def test_labels_longer_than_the_texts_are_no_texts(write):
    dataset = load(write("t.csv", table(rows(), "Short Finding", "Chapter Name", "Block Name")))
    assert dataset.levels == ("Chapter Name", "Block Name")
    assert dataset.frame["text"][0] == "finding 0 of the left side"
    assert any("the others look like labels" in note for note in dataset.warnings)


@pytest.mark.parametrize("first", ["finding {} of the left side", "{}"])
def test_paths_of_long_labels_are_found(write, first):
    of_paths = [
        (f"word {first.format(i)}", " > ".join([a, b, f"{b}, kind {i % 64}"])) for i, (_, a, b) in enumerate(rows())
    ]
    dataset = load(write("t.csv", table(of_paths, "Name of it", "Category Path")))
    assert dataset.levels == ("Category Path0", "Category Path1", "Category Path2")


def test_numbers_with_a_point_are_labels_where_their_column_says_so(write):
    numbered = [(text, f"{i % 4}. Area", f"{i % 4}.{i % 16:02}") for i, (text, *_) in enumerate(rows())]
    dataset = load(write("t.csv", table(numbered, "text", "Main Area", "Sub Area")))
    assert dataset.levels == ("Main Area", "Sub Area")
    assert dataset.frame["Sub Area"][10] == "2.10"
    scored = load(write("u.csv", table(numbered, "text", "Main Area", "Weight")))
    assert scored.levels == ("Main Area",)


def test_labels_of_merged_cells_are_no_texts(write):
    merged = sorted(rows(), key=lambda row: row[1:])
    seen = [("", "", ""), *merged]
    first = [(t, a * (a != b[1]), c * (c != b[2])) for (t, a, c), b in zip(merged, seen, strict=False)]
    with pytest.raises(DataError) as caught:
        load(write("t.csv", table(first, "Request", "Main Category", "Sub Category")))
    assert "as merged cells of a spreadsheet are saved" in caught.value.remedy


@pytest.mark.parametrize(
    ("names", "options"),
    [(("One Story", "Its Sequel", "label"), "--text"), (("text", "First Area", "Second Area"), "--levels")],
)
def test_an_option_that_a_remedy_names_can_be_pasted_whatever_the_columns_are_called(write, names, options):
    free = [
        (f"a story {i} of a man", f"another {i} of a dog" if options == "--text" else f"a{i % 3}", f"b{i % 4}")
        for i in range(60)
    ]
    with pytest.raises(DataError) as caught:
        load(write("t.csv", table(free, *names)))
    given = re.findall(rf"{options} ('[^']*'|\S+)", caught.value.remedy.replace(";", " ").replace(", or", " or"))
    assert len(given) >= 3
    for value in given:
        (word,) = shlex.split(value)
        assert set(word.split(",")) <= set(names)


def test_subjects_that_hardly_repeat_are_no_second_reading(write):
    mails = [(f"mail {i} about it", f"help {i if i < 150 else i - 4}", f"q{i % 4}", f"s{i % 16}") for i in range(160)]
    dataset = load(write("t.csv", table(mails, "text", "Subject", "Queue", "Sub Queue")))
    assert dataset.levels == ("Queue", "Sub Queue")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ((15, "", "s15"), "some rows have a 'Sub Area' and no 'Main Area'"),
        ((15, "m1", "s15"), "'s15' in 'Sub Area' stands beside 'm1' and 'm3' in 'Main Area'"),
    ],
)
def test_what_keeps_two_columns_from_being_a_tree_is_said_and_both_come_first(write, row, said):
    """One unclean row of many left three choices, of which the likely one stood last."""
    made = [(f"request {i} of many", f"s{i % 16}", f"m{i % 4}") for i in range(160)]
    place, area, sub = row
    made[place] = (made[place][0], sub, area)
    with pytest.raises(DataError) as caught:
        load(write("t.csv", table(made, "text", "Sub Area", "Main Area")))
    assert str(caught.value).endswith(f"which are no tree: {said}")
    assert caught.value.remedy.startswith("say which, coarsest first: --levels 'Main Area,Sub Area'")


@pytest.mark.parametrize(
    ("names", "row", "levels"),
    [
        (("words", "city", "living area"), lambda i: (f"c{i % 5}", f"{i % 9}8.5"), ("city",)),
        (("words", "team", "product version"), lambda i: (f"c{i % 5}", f"{i % 3}.{i % 7 + 1}"), ("team",)),
        (("words", "topic", "topic_prob"), lambda i: (f"c{i % 5}", f"0.{i % 9 + 11}"), ("topic",)),
        (("words", "intent", "gender"), lambda i: (f"intent {i % 117}", "mf"[i % 2]), ("intent",)),
        (("words", "label", "sentiment"), lambda i: (f"label {i % 117}", "pn"[i % 2]), ("label",)),
    ],
)
def test_measurements_and_attributes_take_no_labels_place(write, names, row, levels):
    made = [(f"some request {i} of the {i * i} that there are", *row(i)) for i in range(160)]
    assert load(write("t.csv", table(made, *names))).levels == levels


@pytest.mark.parametrize(
    ("names", "row", "text"),
    [
        (("tweet words", "user name", "label"), lambda i: (f"a long tweet of many words {i // 5}" * 3, f"u {i}"), 0),
        (
            ("comment words", "remark of another", "label"),
            lambda i: (f"a comment {i // 5} that several read and annotate", f"a remark {i}"),
            None,
        ),
        (
            ("product review", "shop reply", "label"),
            lambda i: (f"a review {i // 3} of what was bought in this shop", f"a reply {i} of this shop"),
            None,
        ),
        (("remark one", "remark two", "label"), lambda i: (f"said {i}" * (i % 3 == 0), f"told {i}"), None),
    ],
)
def test_a_text_that_stands_on_several_rows_is_a_text(write, names, row, text):
    path = write("t.csv", table([(*row(i), f"b{i % 4}") for i in range(160)], *names))
    if text is None:
        with pytest.raises(DataError, match=f"may be in '{names[0]}' or in '{names[1]}'"):
            load(path)
    else:
        assert load(path).frame["text"][0] == row(0)[text]
