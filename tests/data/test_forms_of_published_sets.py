"""Files written as published datasets are: each read from the guess alone, or with the one option the error names."""

import csv
import io
import json
import zipfile
from pathlib import Path

import polars as pl
import pytest

from data import DataError, Description, load

TREE = {"sport": ["ball", "race"], "art": ["film", "song", "dance"], "law": ["court", "crime"]}
PATHS = [(coarse, fine) for coarse, members in TREE.items() for fine in members]
ROWS = [(f"text number {n} about a {PATHS[n % 7][1]} of old", *PATHS[n % 7]) for n in range(70)]
FINE = {fine for _, fine in PATHS}


def read(path, **options):
    return load(str(path), description=Description(**options))


def table(rows, head=None, **format):
    out = io.StringIO()
    csv.writer(out, lineterminator="\n", **format).writerows([*([head] if head else []), *rows])
    return out.getvalue()


def is_whole(dataset, *levels):
    assert sorted(dataset.texts) == sorted(text for text, *_ in ROWS)
    assert dataset.hierarchy.sizes == levels
    return dataset.warnings


def said(dataset, words):
    return any(words in note for note in dataset.warnings)


def test_a_folder_of_a_file_per_text_in_folders_of_classes_and_splits(tmp_path):
    for n, (text, coarse, fine) in enumerate(ROWS):
        split = "corpus-test" if n % 5 == 0 else "corpus-train"
        path = tmp_path / "set" / split / coarse / fine / f"{n}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (tmp_path / "set" / "README").write_text("about")
    dataset = read(tmp_path / "set")
    is_whole(dataset, 3, 7)
    assert (dataset.frame["split"] == "test").sum() == 14 and said(dataset, "one text per file, 70 files")


def test_lines_that_begin_with_their_label(write):
    fast = write("a.txt", "".join(f"__label__{fine} {text}\n" for text, _, fine in ROWS))
    is_whole(read(fast), 7)
    trec = write("b.txt", "".join(f"{coarse.upper()}:{fine} {text}\n" for text, coarse, fine in ROWS))
    is_whole(read(trec), 3, 7)
    codes = write("c.txt", "".join(f"{'ABC'[n % 3]}0{n % 2}    {text}\n" for n, (text, *_) in enumerate(ROWS)))
    is_whole(read(codes), 6)
    both = write(
        "d.txt", "".join(f"__label__{'a __label__b' if n % 9 == 0 else 'ab'[n % 2]} text {n}\n" for n in range(60))
    )
    with pytest.raises(DataError, match="more than one label per text"):
        read(both)
    plain = write("e.txt", "".join(f"{text}\n" for text, *_ in ROWS))
    with pytest.raises(DataError, match="holds texts and no labels"):
        read(plain)


def test_a_downloaded_archive_of_train_and_test(tmp_path):
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("set/train.csv", table(ROWS[:50], ["text", "level0", "level1"]))
        archive.writestr("set/test.csv", table(ROWS[50:], ["text", "level0", "level1"]))
        archive.writestr("set/README.txt", "about")
    dataset = read(tmp_path / "archive.zip")
    is_whole(dataset, 3, 7)
    assert (dataset.frame["split"] == "test").sum() == 20


def test_train_and_test_without_names_in_their_first_lines(tmp_path):
    for name, rows in (("train", ROWS[:50]), ("test", ROWS[50:])):
        numbered = [(1 + PATHS.index((coarse, fine)), "short", text) for text, coarse, fine in rows]
        (tmp_path / f"{name}.csv").write_text(table(numbered, quoting=csv.QUOTE_ALL))
    dataset = read(tmp_path)
    is_whole(dataset, 7)
    assert said(dataset, "no file has names in its first line: columns are column1, column2, column3")


def test_columns_without_names_can_be_named_as_the_error_names_them(write):
    rows = [(1 + n % 4, f"a question about {n}", "" if n % 2 else "more on it", f"an answer to {n}") for n in range(80)]
    source = write("t.csv", table(rows, quoting=csv.QUOTE_ALL))
    with pytest.raises(DataError, match="may be in") as caught:
        read(source)
    assert "column2" in caught.value.remedy
    dataset = read(source, text=("column2", "column3", "column4"))
    assert len(dataset) == 80 and dataset.hierarchy.sizes == (4,)
    assert dataset.texts[0] == "a question about 0\nmore on it\nan answer to 0"


def by(place):
    keys = dict.fromkeys(row[1 + place] for row in ROWS)
    return {key: [text for text, *path in ROWS if path[place] == key] for key in keys}


def of_rows():
    rows = [{"row_idx": n, "row": {"text": t, "area": c, "topic": f}} for n, (t, c, f) in enumerate(ROWS)]
    return {"features": [{"name": "text"}], "rows": rows}


@pytest.mark.parametrize(
    ("value", "levels"),
    [
        (by(1), (7,)),
        ({coarse: {fine: by(1)[fine] for fine in members} for coarse, members in TREE.items()}, (3, 7)),
        ({"intents": [{"tag": fine, "patterns": texts, "responses": ["yes"]} for fine, texts in by(1).items()]}, (7,)),
        ({"nlu": {"common_examples": [{"text": t, "intent": f, "entities": []} for t, _, f in ROWS]}}, (7,)),
        (of_rows(), (3, 7)),
        ([{"text": t, "topics": {"d0": [c], "d1": [f]}} for t, c, f in ROWS], (3, 7)),
        ([{"doc_token": t.split(), "doc_label": [c, f"{c}--{f}"], "doc_topic": []} for t, c, f in ROWS], (3, 7)),
        ([{"name": t, "category_tree": json.dumps([f"{c} >> {f}"])} for t, c, f in ROWS], (3, 7)),
        ([{"name": t, "path": f"Home/{c}/{f}"} for t, c, f in ROWS], (3, 7)),
    ],
    ids=["labels", "paths", "intents", "wrapped twice", "rows", "lists of one", "tokens", "list of a path", "root"],
)
def test_shapes_of_json(write, value, levels):
    is_whole(read(write("t.json", json.dumps(value))), *levels)


def test_parts_of_splits_with_other_words_in_their_names(write):
    value = {"train": [[t, f] for t, _, f in ROWS[:40]], "oos_train": [[t, "oos"] for t, *_ in ROWS[40:50]]}
    source = write("t.json", json.dumps(value | {"val": [], "test": [[t, f] for t, _, f in ROWS[50:]]}))
    dataset = read(source)
    assert is_whole(dataset, 8) and (dataset.frame["split"] == "train").sum() == 50
    domains = write("domains.json", json.dumps(TREE))
    dataset = read(source, hierarchy=domains)
    assert dataset.hierarchy.classes[0] == ("art", "law", "oos", "sport") and (dataset.labels[:, 1] == -1).sum() == 10


def test_columns_of_zero_and_one(write):
    ones = [(text, *(int(fine == one) for one in FINE)) for text, _, fine in ROWS]
    is_whole(read(write("t.csv", table(ones, ["text", *FINE]))), 7)
    ones[3] = (ones[3][0], *([1] * 7))
    several = write("u.csv", table(ones, ["text", *FINE]))
    with pytest.raises(DataError, match=r"row 4.*more than one label per text") as caught:
        read(several)
    assert "--label first" in caught.value.remedy
    is_whole(read(several, label="first"), 7)
    flags = [(*row, n % 2, n % 3 == 0, n % 5 == 0) for n, row in enumerate(ROWS)]
    is_whole(read(write("v.csv", table(flags, ["text", "area", "topic", "a", "b", "c"]))), 3, 7)


def test_several_labels_in_a_cell_are_refused_however_they_are_written(write):
    for mark in (" ", ", ", ";", "|"):
        cells = [(t, f if n % 4 else f + mark + ROWS[n + 1 - 70][2]) for n, (t, _, f) in enumerate(ROWS)]
        source = write("t.csv", table(cells, ["text", "categories"]))
        with pytest.raises(DataError, match="more than one label per text") as caught:
            read(source)
        assert "--label first" in caught.value.remedy
        is_whole(read(source, label="first"), 7)
    tags = write("u.csv", table([(t, f"<{f}><{c}>") for t, c, f in ROWS], ["text", "tags"]))
    with pytest.raises(DataError, match="more than one label per text"):
        read(tags)
    is_whole(read(tags, label="first"), 7)


def test_two_trees_are_two_readings_whatever_their_names(write):
    rows = [(t, c, f, f"x{n // 7 % 2}", f"x{n // 7 % 2}{n // 14 % 3}") for n, (t, c, f) in enumerate(ROWS)]
    source = write("t.csv", table(rows, ["text", "product", "sub-product", "issue", "sub-issue"]))
    with pytest.raises(DataError, match="labels may be 'product' > 'sub-product' or 'issue' > 'sub-issue'") as caught:
        read(source)
    assert "--levels product,sub-product or --levels issue,sub-issue" in caught.value.remedy


def test_paths_with_an_id_in_front_and_paths_of_dashes(write):
    cells = [(t, f"{100 + PATHS.index((c, f))} - {c} > {f}") for t, c, f in ROWS]
    is_whole(read(write("t.csv", table(cells, ["name", "google_product_category"]))), 3, 7)
    is_whole(read(write("u.csv", table([(t, f"{c}--{f}") for t, c, f in ROWS], ["name", "subject"]))), 3, 7)
    tabs = "".join(f"{n}\tIN:{f}\t{t}\t{c}\n" for n, (t, c, f) in enumerate(ROWS))
    is_whole(read(write("v.txt", tabs)), 3, 7)


def test_numbered_columns_that_are_no_tree_give_way_to_one_that_is(write):
    inside = {fine: members.index(fine) for members in TREE.values() for fine in members}
    rows = [(list(TREE).index(c), inside[f], PATHS.index((c, f)), c, f, t) for t, c, f in ROWS]
    dataset = read(write("t.csv", table(rows, ["Y1", "Y2", "Y", "Domain", "area", "Abstract"])))
    is_whole(dataset, 3, 7)
    assert dataset.levels == ("Domain", "area")
    alone = write("u.csv", table([(t, c, inside[f]) for t, c, f in ROWS], ["text", "cat1", "cat2"]))
    with pytest.raises(DataError, match="under two parents") as caught:
        read(alone)
    assert "--qualify-labels" in caught.value.remedy


def test_codes_are_named_with_digits_that_fit(write):
    rows = [(n, f"{1 + n % 2}{n // 2 % 3}{n // 6 % 10}{n // 60:02}", t) for n, (t, *_) in enumerate(ROWS)]
    source = write("t.csv", table(rows, ["no", "naics code", "title"]))
    with pytest.raises(DataError) as caught:
        read(source)
    assert "--code 'naics code' --digits 1,2" in caught.value.remedy
    assert read(source, code="naics code", digits=(1, 2)).hierarchy.sizes == (2, 6)
    with pytest.raises(DataError, match="says no levels by itself"):
        read(source, code="naics code")


def lines(rows, mark=" "):
    return "".join(mark.join(map(str, row)) + "\n" for row in rows)


COARSE = list(TREE)
ADJACENCY = [
    ("category_id", "parent_category_id", "category_name"),
    *((n, "", coarse) for n, coarse in enumerate(COARSE, 1)),
    *((n, COARSE.index(coarse) + 1, fine) for n, (coarse, fine) in enumerate(PATHS, 4)),
]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.edgelist", lines([(*edge, "{}") for edge in PATHS])),
        ("t.txt", lines([*(("Root", one) for one in TREE), *PATHS], "\t")),
        ("t.taxonomy", lines([("Root", *TREE), *((one, *members) for one, members in TREE.items())], "\t")),
        ("t.toml", "".join(f"{coarse} = {json.dumps(members)}\n" for coarse, members in TREE.items())),
        ("t.csv", lines(ADJACENCY, ",")),
    ],
)
def test_a_hierarchy_given_apart_says_which_column_holds_its_nodes(write, name, text):
    by_id = name.endswith(".csv")
    rows = [(t, 4 + PATHS.index((c, f)) if by_id else f, f"x{n % 9}") for n, (t, c, f) in enumerate(ROWS)]
    source = write("rows.csv", table(rows, ["text", "topic_id", "kind"]))
    dataset = read(source, hierarchy=write(name, text))
    is_whole(dataset, 3, 7)
    assert set(dataset.hierarchy.classes[1]) == FINE


def test_names_for_ids_that_two_levels_use_name_the_level_they_fit(write):
    rows = [(t, list(TREE).index(c), PATHS.index((c, f))) for t, c, f in ROWS]
    source = write("rows.csv", table(rows, ["text", "coarse_label", "fine_label"]))
    dataset = read(source, names=(write("names.json", json.dumps([f for _, f in PATHS])),))
    assert set(dataset.hierarchy.classes[1]) == FINE and dataset.hierarchy.classes[0] == ("0", "1", "2")


def test_an_abstract_is_the_text_and_its_title_can_be_joined(write):
    rows = [(f"t {n}", text * 4, fine) for n, (text, _, fine) in enumerate(ROWS)]
    dataset = read(write("t.csv", table(rows, ["title", "abstract", "field"])))
    assert said(dataset, "--text title,abstract") and dataset.texts[0] == ROWS[0][0] * 4


def test_columns_that_say_test_and_names_that_look_like_splits(write):
    rows = [(*row, int(n % 5 == 0)) for n, row in enumerate(ROWS)]
    dataset = read(write("t.csv", table(rows, ["text", "level0", "level1", "is_test"])))
    assert (dataset.frame["split"] == "test").sum() == 14 and said(dataset, "splits are in column 'is_test'")
    rows = [(*row, 1 + n % 3) for n, row in enumerate(ROWS)]
    dataset = read(write("t.csv", table(rows, ["text", "area", "topic", "splitset_label"])))
    is_whole(dataset, 3, 7)
    assert said(dataset, "'splitset_label' looks like a split and is not used")


def test_parquet_of_lists_and_categories(tmp_path):
    frame = pl.DataFrame({"text": [t for t, *_ in ROWS], "label": [[c, f] for _, c, f in ROWS]})
    frame.write_parquet(tmp_path / "a.parquet")
    is_whole(read(tmp_path / "a.parquet"), 3, 7)
    kind = pl.Categorical
    frame = pl.DataFrame({"text": [t for t, *_ in ROWS], "label": pl.Series([f for *_, f in ROWS], dtype=kind)})
    frame.write_parquet(Path(tmp_path / "b.parquet"))
    is_whole(read(tmp_path / "b.parquet"), 7)
