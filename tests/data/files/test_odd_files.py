"""Files that are not as their names or first lines say: read as they are meant, or refused by name."""

import bz2
import gzip
import unicodedata

import polars as pl
import pytest
import xlsxwriter
from hypothesis import given
from hypothesis import strategies as st

from data import DataError, Description, load, read_texts
from data.checks import FILL_DOWN
from data.files.records import lines_above

TOPICS = {"sport": ("tennis", "chess"), "food": ("bread", "soup")}
ROWS = [
    (f"text {n} on {topic}", area, topic, ("train", "train", "val", "test")[n % 4])
    for n in range(8)
    for area, topics in TOPICS.items()
    for topic in topics
]
NAMES = ("text", "area", "topic", "split")


def table(names=NAMES, rows=ROWS, separator=","):
    return "\n".join(separator.join(map(str, row)) for row in [names, *rows]) + "\n"


def same(dataset):
    """Whether `dataset` has the texts, labels and splits of `ROWS`."""
    assert list(dataset.texts) == [row[0] for row in ROWS]
    assert dataset.frame.get_column("split").to_list() == [row[3] for row in ROWS]
    assert [set(classes) for classes in dataset.hierarchy.classes] == [
        set(TOPICS),
        {"tennis", "chess", "bread", "soup"},
    ]
    return True


@pytest.mark.parametrize(
    "above", ["# made by us, in May\n# licence: see file\n", "My topics\n\n", "My topics,,,\n,,,\n"]
)
def test_lines_above_the_names_are_left_out_and_said(tmp_path, above):
    (tmp_path / "a.csv").write_text(above + table())
    dataset = load(str(tmp_path / "a.csv"))
    assert same(dataset)
    assert any("2 lines above the names of the columns left out" in note for note in dataset.warnings)


def test_an_error_below_a_title_names_the_line_of_the_file(tmp_path):
    (tmp_path / "a.csv").write_text("My topics\n\n" + table() + "one, two, three, four, five\n")
    with pytest.raises(DataError, match=rf"row {len(ROWS) + 1} \(line {len(ROWS) + 4}\): 5 fields under 4 columns"):
        load(str(tmp_path / "a.csv"))


def test_the_separator_that_excel_writes_in_the_first_line(tmp_path):
    (tmp_path / "a.csv").write_text("sep=;\n" + table(separator=";"))
    assert same(load(str(tmp_path / "a.csv")))


@given(st.lists(st.lists(st.sampled_from(["", "a", "b", "#c", "d"]), min_size=3, max_size=3), max_size=30))
def test_rows_of_repeated_values_are_never_taken_for_lines_above(rows):
    names = ["text", "area", "topic"]
    assert lines_above([names, *rows, *rows]) == 0
    assert lines_above([*(row for row in rows for _ in range(2))]) <= len(rows)


def test_sheets_of_excel_title_and_notes_aside(tmp_path):
    book = xlsxwriter.Workbook(tmp_path / "a.xlsx")
    book.add_worksheet("Notes").write_row(0, 0, ["about", "who"])
    sheet = book.add_worksheet("Data")
    for number, row in enumerate([("My topics",), (), NAMES, *ROWS]):
        sheet.write_row(number, 0, row)
    book.close()
    dataset = load(str(tmp_path / "a.xlsx"))
    assert same(dataset)
    assert any("left out: 'Notes'" in note for note in dataset.warnings)


@pytest.mark.parametrize("above", [[], [("My topics",), ()]])
def test_rows_are_counted_below_the_names_whatever_stands_above_them(tmp_path, above):
    """In a sheet with a title they were counted from the first line, in a CSV from below the names."""
    made = [("text", "area", "topic"), *((f"text {n}", f"a{n % 2}", f"b{n % 4}") for n in range(12)), ("", "a0", "b0")]
    book = xlsxwriter.Workbook(tmp_path / "a.xlsx")
    sheet = book.add_worksheet()
    for number, row in enumerate([*above, *made]):
        sheet.write_row(number, 0, row)
    book.close()
    lines = [",".join(row) for row in (*(("My topics", "", ""), ("", "", ""))[: len(above)], *made)]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    for name in ("a.xlsx", "a.csv"):
        with pytest.raises(DataError, match="row 13: the text is empty"):
            load(str(tmp_path / name))


def test_merged_cells_of_excel_are_told_and_filled_when_asked(tmp_path):
    book = xlsxwriter.Workbook(tmp_path / "a.xlsx")
    sheet = book.add_worksheet()
    sheet.write_row(0, 0, ["area", "topic", "description"])
    for number in range(24):
        sheet.write_row(number + 1, 2, [f"a description of thing {number}"])
    for first in (1, 13):
        sheet.merge_range(first, 0, first + 11, 0, f"area {first}")
    for first in (1, 7, 13, 19):
        sheet.merge_range(first, 1, first + 5, 1, f"topic {first}")
    book.close()
    path = str(tmp_path / "a.xlsx")
    with pytest.raises(DataError, match="look like labels") as found:
        load(path)
    assert FILL_DOWN in found.value.remedy
    with pytest.raises(DataError, match="no label in column area") as found:
        load(path, levels=("area", "topic"))
    assert FILL_DOWN in found.value.remedy
    for levels in (None, ("area", "topic")):
        filled = load(path, levels=levels, description=Description(fill_down=True))
        assert filled.levels == ("area", "topic")
        assert filled.frame["area"].to_list() == ["area 1"] * 12 + ["area 13"] * 12
        assert filled.frame["topic"].to_list() == [f"topic {n}" for n in (1, 7, 13, 19) for _ in range(6)]


@pytest.mark.parametrize(
    ("name", "packed"), [("a.csv", gzip.compress), ("a.txt", bz2.compress), ("a.csv.gz", bytes), ("a.csv.xz", bytes)]
)
def test_the_first_bytes_say_how_a_file_is_compressed(tmp_path, name, packed):
    (tmp_path / name).write_bytes(packed(table().encode()))
    assert same(load(str(tmp_path / name)))


def test_a_table_of_another_kind_than_its_name_says(tmp_path):
    frame = pl.DataFrame(ROWS, schema=NAMES, orient="row")
    frame.write_parquet(tmp_path / "parquet.csv")
    frame.write_json(tmp_path / "json.csv")
    frame.write_excel(tmp_path / "excel.xlsx")
    (tmp_path / "excel.xlsx").rename(tmp_path / "excel.tsv")
    for name, kind in (("parquet.csv", "parquet"), ("json.csv", "json"), ("excel.tsv", "xlsx")):
        dataset = load(str(tmp_path / name))
        assert same(dataset)
        assert any(f"holds {kind}, not" in note for note in dataset.warnings)


@pytest.mark.parametrize(
    ("name", "content", "problem", "remedy"),
    [
        ("a.xml", "<?xml version='1.0'?><rows/>", "is XML, which is not read", "pandas.read_xml"),
        ("a.csv", "<!DOCTYPE html><p>404</p>", "is HTML, which is not read", "pandas.read_html"),
        ("a.csv", "version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS", "git lfs pull"),
        ("a.csv", "text,area,topic\n", "has no rows", "at least one row"),
    ],
)
def test_what_is_no_table_is_refused_by_name(tmp_path, name, content, problem, remedy):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=problem) as caught:
        load(str(tmp_path / name))
    assert remedy in caught.value.remedy


def test_folders_of_seq_in_and_label_as_intent_datasets_have_them(tmp_path):
    for folder, split in (("train", "train"), ("valid", "val"), ("test", "test")):
        (tmp_path / folder).mkdir()
        rows = [row for row in ROWS if row[3] == split]
        (tmp_path / folder / "seq.in").write_text("".join(f"{row[0]}\n" for row in rows))
        (tmp_path / folder / "seq.out").write_text("".join("O O O O\n" for _ in rows))
        (tmp_path / folder / "label").write_text("".join(f"{row[2]}\n" for row in rows))
    dataset = load(str(tmp_path))
    assert sorted(zip(dataset.texts, dataset.frame.get_column("split"), strict=True)) == sorted(
        (row[0], row[3]) for row in ROWS
    )


def test_numbers_for_splits_get_their_meaning_by_one_option(tmp_path):
    number = {"train": 0, "val": 1, "test": 2}
    (tmp_path / "a.csv").write_text(table(rows=[(*row[:3], number[row[3]]) for row in ROWS]))
    with pytest.raises(DataError) as caught:
        load(str(tmp_path / "a.csv"))
    assert "--split 'split:0=train,1=test'" in caught.value.remedy
    assert same(load(str(tmp_path / "a.csv"), description=Description(split="split:0=train,1=val,2=test")))
    with pytest.raises(DataError, match="'x' is no split"):
        load(str(tmp_path / "a.csv"), description=Description(split="split:0=x"))


@pytest.mark.parametrize("others", [("1.0", "a word"), ("\u00b9",), ("1\u200b",)])
def test_labels_that_differ_in_spelling_alone_are_said(tmp_path, others):
    labels = (1, *others)
    rows = [(*row[:2], labels[n % len(labels)], row[3]) for n, row in enumerate(ROWS)]
    (tmp_path / "a.csv").write_text(table(rows=rows))
    assert any("count as different" in note for note in load(str(tmp_path / "a.csv"), levels=["topic"]).warnings)


def test_whole_numbers_that_pandas_wrote_as_floats_are_labels(tmp_path):
    topics = [topic for topics in TOPICS.values() for topic in topics]
    frame = pl.DataFrame([(*row[:2], float(topics.index(row[2])), row[3]) for row in ROWS], schema=NAMES, orient="row")
    frame.write_parquet(tmp_path / "a.parquet")
    assert load(str(tmp_path / "a.parquet")).levels == ("area", "topic")


def test_a_hierarchy_that_lies_beside_the_file_is_named_with_its_option(tmp_path):
    (tmp_path / "rows.csv").write_text(table(("text", "label", "split"), [(row[0], row[2], row[3]) for row in ROWS]))
    file = tmp_path / "taxonomy.csv"
    file.write_text("parent,child\n" + "".join(f"{area},{topic}\n" for area, some in TOPICS.items() for topic in some))
    (note,) = [note for note in load(str(tmp_path / "rows.csv")).warnings if "taxonomy.csv" in note]
    assert f"--hierarchy {file}" in note
    assert len(load(str(tmp_path / "rows.csv"), description=Description(hierarchy=str(file))).levels) == 2


def test_columns_are_found_whichever_way_their_accents_are_spelled(tmp_path):
    path = tmp_path / "t.csv"
    header = unicodedata.normalize("NFD", "téxt,domaïn,sprüche")
    path.write_text(f"{header}\none,a,train\ntwo,b,test\n", encoding="utf-8")
    dataset = load(path, description=Description(("téxt",), ("domaïn",), split="sprüche"))
    assert dataset.frame["text"].to_list() == ["one", "two"]
    assert dataset.frame["split"].to_list() == ["train", "test"]
    assert read_texts(path, "téxt") == ["one", "two"]


def test_fields_between_single_quotation_marks(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,level0,split\n'it''s one, or','a','train'\n'two','b','test'\n", encoding="utf-8")
    dataset = load(path)
    assert dataset.frame.rows() == [("it's one, or", "a", "train"), ("two", "b", "test")]
    assert any("single quotation marks" in note for note in dataset.warnings)
    path.write_text("text,level0,split\n'tis one,a,train\n'two',b,test\n", encoding="utf-8")
    assert load(path).frame["text"].to_list() == ["'tis one", "'two'"]


def test_single_quotation_marks_where_a_separator_asks_for_them(tmp_path):
    path = tmp_path / "t.csv"
    rows = [f'{"ab"[n % 2]};"Number" {n}, so, is it' for n in range(50)] + ["a;'one; it''s \"two\"'"]
    path.write_text("level0;text\n" + "\n".join(rows), encoding="utf-8")
    dataset = load(path)
    assert dataset.frame["text"][50] == 'one; it\'s "two"' and dataset.frame["text"][0] == '"Number" 0, so, is it'
    assert any("single quotation marks" in note for note in dataset.warnings)
    path.write_text("level0;text\n" + "\n".join([*rows, "b;'tis late; isn't it'", "b;'tis"]), encoding="utf-8")
    with pytest.raises(DataError, match="quotation mark"):
        load(path)
    path.write_text("level0;text\n" + "\n".join(rows[:50]), encoding="utf-8")  # nothing proves single marks
    with pytest.raises(DataError, match="quotation mark"):
        load(path)


def test_a_blank_behind_every_separator_belongs_to_no_field(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('text, level0, split\none, a, train\n"two, or so", "b", test\n', encoding="utf-8")
    assert load(path).frame.rows() == [("one", "a", "train"), ("two, or so", "b", "test")]


def test_bytes_of_a_parquet_file_are_texts_where_they_are_utf_8(tmp_path):
    path = tmp_path / "t.parquet"
    columns = {"text": ["oné".encode(), b"two"], "level0": [b"a", b"b"], "split": ["train", "test"]}
    pl.DataFrame({**columns, "hash": [b"\xff", b"\xfe"]}).write_parquet(path)
    assert load(path).frame.rows() == [("oné", "a", "train"), ("two", "b", "test")]
    pl.DataFrame({**columns, "text": [b"\xff", b"\xfe"]}).write_parquet(path)
    with pytest.raises(DataError, match="not a text"):
        load(path)


def test_single_quotation_marks_that_do_not_hold_are_characters(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,level0,split\n'tis one,'a',train\n'it's' two,'b',test\n", encoding="utf-8")
    assert load(path).frame.rows() == [("'tis one", "'a'", "train"), ("'it's' two", "'b'", "test")]
