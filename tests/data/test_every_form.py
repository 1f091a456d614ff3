"""A small file of each form in which people have datasets: read as it is, or with the option that the error names."""

import json
import shutil
import tempfile
from pathlib import Path

import polars as pl
import pytest

from data import DataError, Description, load
from data.columns.label_tree import tree_of
from data.description import described
from tests.data.every_form import write_forms

_PLACE = tempfile.TemporaryDirectory()  # removed when the process ends
FORMS = write_forms(Path(_PLACE.name))
NAMES = {"home", "money", "travel"}, {"delay", "heating", "lamp", "pay", "refund", "seat"}


def loaded(name, **options):
    return load(str(FORMS / name), **options)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("plain.csv", ()),
        ("packed.csv.gz", ()),
        ("tabs.tsv", ("texts are in column 'sentence'", "'area' > 'topic'", "splits are in column 'partition'")),
        ("semicolons_utf16.csv", ("UTF-16", "separated by semicolons")),
        (
            "windows_1252.csv",
            ("Windows-1252", "texts are in column 'utterance'", "'category' > 'subcategory'", "'set'"),
        ),
        ("no_header.csv", ("the first line is a row", "texts are in column 'column4'", "'column2' > 'column3'")),
        ("array.json", ("'domain' > 'intent'",)),
        ("keyed.json", ("records keyed by id", "texts are in column 'query'")),
        ("splits.json", ("the parts train, val, test are the splits", "'l1' > 'l2'")),
        ("lines.jsonl", ("lists in column 'labels' are paths of 2 levels",)),
        ("columns.parquet", ("'area' > 'topic'",)),
        ("sheet.xlsx", ("'Level 1' > 'Level 2'", "splits are in column 'Split'")),
        ("folder", ("splits are in files of their own (dev.csv: val, test.csv: test, train.csv: train)",)),
        ("parallel", ("line by line", "texts are in column 'texts'", "'area_labels' > 'topic_labels'")),
        ("path_arrow.csv", ("paths separated by ' > '", "no column split")),
        ("path_slash.csv", ("paths separated by '/' (--path-separator none: they are no paths)",)),
        ("python_list.csv", ("lists in column 'label' are paths of 2 levels",)),
        ("toml/rows.csv", ("described by", "hierarchy given apart")),
        ("toml/rows.toml", ("hierarchy given apart",)),
    ],
)
def test_read_from_the_guess_alone_which_is_said(name, said):
    dataset = loaded(name)
    assert len(dataset) == 48
    assert tuple(map(set, dataset.hierarchy.classes)) == NAMES
    for words in said:
        assert any(words in note for note in dataset.warnings), (words, dataset.warnings)
    if not said:
        assert dataset.warnings == ()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("names/ids.csv", {"names": (str(FORMS / "names/labels.csv"),)}),
        ("tree/rows.csv", {"hierarchy": str(FORMS / "tree/nodes.csv")}),
        ("mapping/rows.csv", {"hierarchy": str(FORMS / "mapping/domains.json")}),
        ("title_and_body.csv", {"text": ("title", "description")}),
    ],
)
def test_read_with_one_option(name, options):
    dataset = loaded(name, description=Description(**options))
    assert len(dataset) == 48 and tuple(map(set, dataset.hierarchy.classes)) == NAMES


def test_what_can_be_read_in_two_ways_names_both_options():
    with pytest.raises(DataError, match="may be in 'title' or in 'description'") as caught:
        loaded("title_and_body.csv")
    assert "--text title or --text description" in caught.value.remedy
    with pytest.raises(DataError, match="more than one label per text") as caught:
        loaded("several_labels.csv")
    assert "--label first" in caught.value.remedy and "--path-separator ';'" in caught.value.remedy
    assert len(loaded("several_labels.csv", description=Description(label="first"))) == 48


def test_uneven_depth_and_one_level():
    uneven = loaded("uneven.csv")
    assert (uneven.labels[:, 1] == -1).sum() == 16 and (uneven.labels[:, 0] >= 0).all()
    assert any("6 rows have 'None' in column level1: read as no label" in note for note in uneven.warnings)
    assert len(loaded("uneven.csv", drop_incomplete=True)) == 32
    assert loaded("one_level.csv").hierarchy.sizes == (6,)


@pytest.mark.parametrize(
    "labels", [("and/or", "Food/Drink", "other"), ("v1.2", "v1.3", "v2.0", "v2.1", "v2.2"), ("Food/Drink", "Art/Craft")]
)
def test_labels_with_marks_inside_are_no_paths(write, labels):
    rows = "".join(f"text number {n},{labels[n % len(labels)]}\n" for n in range(60))
    assert load(write("t.csv", "text,label\n" + rows)).hierarchy.classes == (tuple(sorted(labels)),)


def test_paths_of_uneven_depth_and_repeated_names_when_asked(write):
    labels = ("comp.os.windows", "comp.graphics", "rec.autos", "rec.os", "misc")
    rows = "".join(f"text number {n},{labels[n % 5]}\n" for n in range(100))
    dataset = load(write("t.csv", "text,label\n" + rows), description=Description(path_separator="."))
    assert dataset.hierarchy.classes[0] == ("comp", "misc", "rec")
    assert dataset.hierarchy.classes[1] == ("autos", "comp/os", "graphics", "rec/os")
    assert (dataset.labels == -1).sum() == 20 * (1 + 1 + 1 + 2)


def test_a_column_that_looks_like_a_split_and_is_not_used_is_said(write):
    rows = "".join(f"text number {n},a{n % 2},b{n % 4},{n % 10}\n" for n in range(80))
    dataset = load(write("t.csv", "text,level0,level1,fold\n" + rows))
    assert any("column 'fold' looks like a split and is not used" in note for note in dataset.warnings)
    with pytest.raises(DataError, match="split is '0'"):
        load(write("t.csv", "text,level0,level1,fold\n" + rows), description=Description(split="fold"))


def test_several_files_in_any_order(tmp_path):
    whole = loaded("folder").frame.sort("text", "fine")
    one, two, three = (str(FORMS / "folder" / f"{name}.csv") for name in ("train", "dev", "test"))
    assert load(one, description=Description(files=(two, three))).frame.sort("text", "fine").equals(whole)
    for part, name in ((one, "a"), (two, "b"), (three, "c")):
        shutil.copy(part, tmp_path / f"{name}.csv")
    a, b, c = (str(tmp_path / f"{name}.csv") for name in "abc")
    said = Description(train=(a,), val=(b,), test=(c,))
    assert load(a, description=said).frame.sort("text", "fine").equals(whole)
    (tmp_path / "c.csv").write_text("text,coarse\nx,y\n")
    with pytest.raises(DataError, match="have different columns: 'fine'"):
        load(a, description=said)


@pytest.mark.parametrize(
    "value",
    [
        {"a": ["x", "y"], "b": ["z"]},
        {"x": "a", "y": "a", "z": "b"},
        [["a", "x"], ["a", "y"], ["b", "z"]],
        {
            "nodes": [{"id": "a"}],
            "links": [{"source": s, "target": t} for s, t in (("a", "x"), ("a", "y"), ("b", "z"))],
        },
        {"a": {"x": [], "y": []}, "b": {"z": None}},
    ],
)
def test_a_hierarchy_in_each_of_its_forms(value):
    assert tree_of(json.loads(json.dumps(value)), "t")[0] == {"a": None, "b": None, "x": "a", "y": "a", "z": "b"}


def test_a_hierarchy_with_two_parents_or_without_a_label_is_refused(write):
    with pytest.raises(DataError, match="'x' stands under 'a' and 'b'"):
        tree_of({"a": ["x"], "b": ["x"]}, "t")
    for tree in ({"a": ["x"]}, {"links": [{"source": "a"}]}, {"edges": ["a"]}):
        path = write("tree.json", json.dumps(tree))
        with pytest.raises(DataError, match="is not in the hierarchy"):
            loaded("mapping/rows.csv", description=Description(hierarchy=path))


@pytest.mark.parametrize(
    "line",
    ['header = "false"', 'drop-incomplete = "no"', "split = 5", 'separator = [";"]', "names = 5", 'digits = "2,4"'],
)
def test_a_value_of_another_type_in_a_toml_file_is_refused(write, line):
    source = write("t.csv", "text,label\n" + "".join(f"text {i},l{i % 2}\n" for i in range(8)))
    write("t.toml", line)
    with pytest.raises(DataError, match=f"t.toml: {line.split()[0].replace('-', '_')} is"):
        load(source)


@pytest.mark.parametrize(("option", "says"), [("label", "no column 'frist' for --label"), ("quotes", "quotes 'frist'")])
def test_a_misspelt_word_is_refused(write, option, says):
    source = write("t.csv", "text,label\n" + "".join(f"text {i},l{i % 2}\n" for i in range(8)))
    with pytest.raises(DataError, match=says):
        load(source, description=Description(**{option: "frist"}))


@pytest.mark.parametrize("train", ["a.csv", "c.csv"])
def test_a_file_of_no_split_beside_files_of_splits_is_refused(write, train):
    a, b, c = (
        write(f"{name}.csv", "text,label\n" + "".join(f"{name} text {i},l{i % 2}\n" for i in range(8)))
        for name in "abc"
    )
    said = Description(files=(b,), train=(str(Path(a).with_name(train)),), test=(c,))
    with pytest.raises(DataError, match=r"b\.csv: no split is given"):
        load(a, description=said)


def test_a_folder_or_a_path_spelled_otherwise_is_no_file_of_no_split(write, tmp_path):
    a, b = (
        write(f"{name}.csv", "text,label\n" + "".join(f"{name} text {i},l{i % 2}\n" for i in range(8))) for name in "ab"
    )
    spelled = str(tmp_path / "." / ".." / tmp_path.name / "a.csv")
    by_hand = load(spelled, description=Description(train=(a,), test=(b,)))
    write("dataset.toml", 'train = ["a.csv"]\ntest = ["b.csv"]\n')
    for found in (by_hand, load(str(tmp_path))):
        assert [len(found.split_rows(split)) for split in ("train", "test")] == [8, 8]


def test_a_level_that_is_guessed_may_not_be_called_text(write):
    source = write("t.csv", "sentence,text\n" + "".join(f"words of row {i},label {i % 2}\n" for i in range(8)))
    with pytest.raises(DataError, match="a level is called text"):
        load(source, text="sentence")


def test_flags_of_a_toml_file_hold_beside_options(write):
    rows = [f"text {i},c{i % 2},{'both' if i % 3 else 'own'},train" for i in range(12)]
    rows += [f"more {i},c{i % 2},both,test" for i in range(4)] + ["no label,,,train"]
    source = write("t.csv", "text,level0,level1,split\n" + "\n".join(rows) + "\n")
    write("t.toml", "qualify-labels = true\ndrop_incomplete = true\nheader = true\n")
    assert load(source, text="text").hierarchy.sizes == (2, 4)
    assert described(source, Description(header=False))[1].header is False


def test_options_win_over_a_toml_file(write):
    write("t.csv", (FORMS / "title_and_body.csv").read_text())
    write("t.toml", 'text = "description"\n')
    source = str(Path(write("t.csv", (FORMS / "title_and_body.csv").read_text())))
    assert len(load(source).frame["text"][0].split()) > 3
    assert described(source, Description(text=("title",)))[1].text == ("title",)


@pytest.mark.parametrize("word", ["N/A", "null", "NaN", "none"])
def test_a_word_for_no_label_does_not_hide_the_tree(tmp_path, word):
    rows = [(f"text number {i}", "ab"[i % 2], word if i % 3 == 0 else f"{'ab'[i % 2]}{i % 4 // 2}") for i in range(80)]
    path = tmp_path / "words.csv"
    path.write_text("text,area,topic\n" + "".join(f"{','.join(row)}\n" for row in rows))
    dataset = load(str(path))
    assert dataset.levels == ("area", "topic") and dataset.frame["topic"].null_count() == 27


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_names_of_columns_that_stand_again_inside_the_file_are_no_row(tmp_path, mark):
    rows = [f"text number {i},{'ab'[i % 2]},{i % 2}{i % 4 // 2},{'train' if i % 5 else 'test'}\n" for i in range(80)]
    lines = ["text,area,topic,split\n", *rows[:40], f"{mark}text,area,topic,split\n", *rows[40:]]
    path = tmp_path / "together.csv"
    path.write_text("".join(lines))
    dataset = load(str(path))
    assert len(dataset) == 80 and dataset.levels == ("area", "topic") and dataset.hierarchy.classes[0] == ("a", "b")
    assert (dataset.frame["split"] == "test").sum() == 16
    assert any("row 41: the names of the columns once more" in note for note in dataset.warnings)


def test_a_first_row_that_stands_twice_is_still_a_row(tmp_path):
    rows = [f"text number {i},{'ab'[i % 2]},{i % 2}{i % 4 // 2}\n" for i in range(80)]
    path = tmp_path / "bare.csv"
    path.write_text("".join([*rows, rows[0]]))
    assert len(load(str(path))) == 81


def test_ids_that_a_missing_value_made_floats_are_those_of_the_names_and_of_the_hierarchy(tmp_path):
    path, names, tree = (tmp_path / name for name in ("ids.csv", "names.csv", "tree.json"))
    path.write_text("text,topic\n" + "".join(f"text number {i},{i % 4}.0\n" for i in range(80)))
    names.write_text("id,name\n0,zero\n1,one\n2,two\n3,three\n")
    tree.write_text(json.dumps({"low": ["0", "1"], "high": ["2", "3"]}))
    named = load(str(path), levels=["topic"], description=Description(names=(str(names),)))
    assert sorted(named.hierarchy.classes[0]) == ["one", "three", "two", "zero"]
    assert load(str(path), description=Description(hierarchy=str(tree))).hierarchy.sizes == (2, 4)


def test_numbers_that_one_of_two_files_holds_as_floats_are_the_same_classes(tmp_path):
    rows = pl.DataFrame({"text": [f"text number {i}" for i in range(80)], "area": [i % 2 for i in range(80)]})
    rows = rows.with_columns(topic=pl.col("area") * 2 + pl.int_range(80) // 2 % 2)
    rows[:60].write_parquet(tmp_path / "train.parquet")
    rows[60:].with_columns(pl.when(pl.int_range(20) > 0).then(pl.col("topic").cast(pl.Float64))).write_parquet(
        tmp_path / "test.parquet"
    )
    dataset = load(str(tmp_path), levels=["area", "topic"])
    assert sorted(dataset.hierarchy.classes[1]) == ["0", "1", "2", "3"]
    assert any("with and without .0" in note for note in dataset.warnings)


def test_a_word_for_no_label_above_a_label_is_said(tmp_path):
    rows = [(f"text number {i}", "a" if i % 2 else "N/A", f"{i % 2}{i % 4 // 2}") for i in range(80)]
    path = tmp_path / "words.csv"
    path.write_text("text,area,topic\n" + "".join(f"{','.join(row)}\n" for row in rows))
    assert any("40 rows have 'N/A' in column area: a class of that name" in note for note in load(str(path)).warnings)


def test_columns_that_are_no_tree_may_both_be_named(tmp_path):
    rows = [(f"text number {i}", "ab"[i % 2], "other" if i % 7 == 0 else f"{i % 2}{i % 4 // 2}") for i in range(80)]
    path = tmp_path / "cross.csv"
    path.write_text("text,area,topic\n" + "".join(f"{','.join(row)}\n" for row in rows))
    with pytest.raises(DataError, match="no tree") as caught:
        load(str(path))
    assert "--levels area,topic" in caught.value.remedy


def test_what_is_said_of_several_files_is_said_once(tmp_path):
    for name in "abcdefgh":
        rows = "".join(f"text {n} of {name} about {'xyz'[n % 3]};{'xyz'[n % 3]}\n" for n in range(20))
        (tmp_path / f"{name}.csv").write_text("text;label\n" + rows)
    said = [note for note in load(str(tmp_path)).warnings if "semicolons" in note]
    assert len(said) == 1 and "a.csv" in said[0] and "and 3 more" in said[0]


def test_an_option_for_several_levels_says_that_it_changes_nothing_of_one(write):
    rows = "".join(f"text {n},{'ab'[n % 2]},{'xyz'[n % 3]}\n" for n in range(60))
    path = write("a.csv", "text,mood,label\n" + rows)
    assert any(
        "--qualify-labels changes nothing" in note
        for note in load(str(path), description=Description(qualify_labels=True)).warnings
    )
    both = load(str(path), description=Description(qualify_labels=True, levels=("mood", "label")))
    assert both.hierarchy.sizes == (2, 6) and not any("changes nothing" in note for note in both.warnings)


def test_a_misspelt_key_of_a_toml_file_is_told_which_is_meant(write):
    path = write("a.csv", "text,level0\none,a\n")
    write("a.toml", 'levls = ["level0"]\n')
    with pytest.raises(DataError, match="'levls' is no key") as refused:
        load(str(path))
    assert refused.value.remedy.startswith("did you mean levels?") and "qualify_labels" in refused.value.remedy
