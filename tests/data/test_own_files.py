"""Files of the user's own: what is read, and what each bad one is told."""

import re

import polars as pl
import pytest

from data import DataError, load, read_texts
from tests.data.good_file import GOOD, HEADER, LINES, ROWS


def test_levels_by_number_or_by_name_and_a_text_column_of_another_name(write):
    many = "level10,id,level2,level1,sentence,level0,split," + ",".join(f"level{n}" for n in range(3, 10)) + "\n"
    row = "k,7,c,b,{},a,{}," + ",".join("defghij") + "\n"
    path = write("many.csv", many + row.format("one", "train") + row.format("two", "test"))
    dataset = load(path, text="sentence")
    assert dataset.levels == tuple(f"level{n}" for n in range(11))
    assert dataset.frame.row(0) == ("one", *"abcdefghijk", "train")
    assert load(path, text="sentence", levels=["level1", "id"]).frame.columns == ["text", "level1", "id", "split"]


def test_missing_splits_are_made_and_said(write):
    text = "text,level0,level1\n" + "".join(f"text {n},a{n % 2},b{n % 4}\n" for n in range(80))
    first = load(write("t.csv", text))
    assert any("no column split" in warning for warning in first.warnings)
    more = load(write("t.csv", text.replace("level1\n", "level1\none more,a0,b0\n") + "and another,a1,b1\n"))
    assert more.frame.slice(1, 80).equals(first.frame)


def test_rows_without_a_finer_label_keep_what_they_have_or_are_dropped(write):
    path = write("t.csv", GOOD + "five,03,,test\nsix,, ,test\nseven,01,1.50,train\n")
    with pytest.raises(DataError) as caught:
        load(path)
    assert f"{path}, row 6: no label in column level0" in str(caught.value)
    assert "--drop-incomplete" in caught.value.remedy
    kept = load(write("u.csv", GOOD + "five,03,,test\n"))
    assert kept.frame.row(4) == ("five", "03", None, "test")
    assert kept.labels[4].tolist() == [2, -1]
    assert any("1 of 5 rows has no label of level level1" in warning for warning in kept.warnings)
    with pytest.raises(DataError, match="row 5: no label in column level0"):
        load(write("u.csv", GOOD + "five,,x,test\n"))
    dataset = load(path, drop_incomplete=True)
    assert dataset.frame.rows() == [*ROWS, ("seven", "01", "1.50", "train")]
    assert "2 rows without a label left out: 5, 6" in dataset.warnings


def test_a_label_under_two_parents_is_refused_or_qualified(write):
    path = write("t.csv", "text,a,b,c,split\none,1,x,p,train\ntwo,2,x,p,test\n")
    with pytest.raises(DataError) as caught:
        load(path, levels=["a", "b", "c"])
    assert "b 'x' under '1' (row 1), '2' (row 2)" in str(caught.value)
    assert "--qualify-labels" in caught.value.remedy
    dataset = load(path, levels=["a", "b", "c"], qualify_labels=True)
    assert dataset.frame.row(1) == ("two", "2", "2/x", "2/x/p", "test")


def test_row_numbers_are_the_files_own_after_blank_lines_and_dropped_rows(write):
    path = write("t.csv", GOOD + "\nfive,03,,test\n,01,1.50,train\none,02,2.0,train\n")
    with pytest.raises(DataError, match="row 7: the text is empty"):
        load(path, drop_incomplete=True)
    path = write("t.jsonl", "\n".join([*LINES, "", '{"text": " ", "level0": "01", "level1": "1.50", "split": "test"}']))
    with pytest.raises(DataError, match="row 7: the text is empty"):
        load(path)


@pytest.mark.parametrize(
    ("name", "content", "problem", "remedy"),
    [
        ("t.csv", "", "is empty", "header"),
        ("t.jsonl", "", "is empty", "rows"),
        ("t.parquet", "", "is empty", "header"),
        ("t.csv", HEADER, "has no rows", "row"),
        ("t.jsonl", "\n\n", "no columns level0|no rows|cannot read", ""),
        ("t.csv", "n,level0,level1\n5,b,c\n", "no column 'text'.*it has 'n', 'level0'", "--text"),
        ("t.csv", "text,domain,intent\na,b,c\n", "it has 'text', 'domain', 'intent'", "--levels"),
        ("t.csv", "text\na\nb\n", "holds texts and no labels", "a column per level"),
        ("t.csv", "text,level0,level2\na,b,c\n", "levels level0, level2: one is missing", "gap"),
        ("t.csv", "text,level0,level1,level1\na,b,c,d\n", "two columns 'level1'", "rename"),
        ("t.csv", GOOD + "five,01\n", "row 5: split is none", "remove the column"),
        ("t.csv", GOOD + "five, six,01,1.50,test\n", r"row 5 \(line 6\): 5 fields under 4 columns", "quotation"),
        ("t.csv", GOOD + '"five,01,1.50,test\nsix,01,1.50,test\n', r"row 5 \(line 6\): a quotation mark", "close"),
        ("t.csv", (GOOD + "ça\n").encode() + b"caf\xe9,01,1.50,test\n", "line 7: byte 0xE9 is not UTF-8", "--encoding"),
        ("t.csv", GOOD.encode() + "Привет,01,1.5,test\n".encode("cp1251"), "line 6: byte 0xCF is not", "--encoding"),
        ("t.csv", GOOD.encode() + "テキスト,01,1.5,test\n".encode("shift-jis"), "line 6: byte 0x83 is", "--encoding"),
        ("t.csv", GOOD.encode("utf-16")[:-1], r"line \d: .* is not utf-16", "--encoding"),
        ("t.jsonl", b'{"text": "\xff\x00"}\n', "line 1: byte 0xFF is not UTF-8", "--encoding"),
        ("t.csv", GOOD + ",01,1.50,test\n", "row 5: the text is empty", "remove"),
        ("t.csv", GOOD + "five,01,1.50,tset\n", "row 5: split is 'tset'", "train, val, test"),
        ("t.csv", GOOD + "five,01,1.50,\n", "row 5: split is none", "remove the column"),
        ("t.csv", GOOD.replace("test", "train"), "no row has split test", "column of splits"),
        ("t.csv", "text,level0,level1\none,a,b\n", "no row has split", "too small"),
        ("t.csv", GOOD + "x" * 10_000_000 + ",01,1.50,test\n", "row 5: a text of 10,000,000", "shorten"),
        (
            "t.jsonl",
            '{"text": ["a"], "level0": "a", "level1": "b"}',
            r'row 1: text is \'\["a"\]\', a list, not a text',
            "string",
        ),
        ("t.jsonl", LINES[0] + '\n{"text": 5, "level0": "a", "level1": "b"}', "row 2: text is", "string"),
        ("t.jsonl", '{"text": "a", "level0": [1], "level1": "b"}', "row 1: level0 is", "string or number"),
        ("t.jsonl", '{"text": "a", "text": "b"}', "row 1: not JSON .the name 'text' stands twice", "object"),
        ("t.jsonl", '{"text": "a"\n', "row 1: not JSON", "object per line"),
        ("t.jsonl", "5\n", "row 1: not a JSON object", "object per line"),
        ("t.jsonl", '[\n{"text": "a"}\n]', "row 1: not JSON", "object per line"),
        ("t.jsonl", '{"text": "\\ud800", "level0": "a", "level1": "b"}', "row 1: text holds half a surrogate", "whole"),
        ("t.jsonl", "[" * 100_000, "row 1: not JSON", "object per line"),
        ("t.parquet", "PAR1, not really", "cannot read .*t.parquet as parquet", "of that kind"),
        ("t.csv.gz", b"not gzip" * 10, "has no rows", ""),
        ("t.xlsx", "PK", "cannot read .*xlsx", "of that kind"),
        ("t.doc", "PK", "unknown kind '.doc'", ".csv, .tsv, .parquet, .jsonl"),
        ("table", GOOD, "without a suffix", ".csv"),
    ],
)
def test_each_bad_file_is_told_in_one_line_what_and_where(write, name, content, problem, remedy):
    path = write(name, content)
    with pytest.raises(DataError, match=problem) as caught:
        load(path)
    assert name in str(caught.value)
    for line in (str(caught.value), caught.value.remedy):
        assert line and "\n" not in line and len(line) < 700
    assert caught.value.remedy == caught.value.remedy.strip()
    assert re.search(remedy, caught.value.remedy)


@pytest.mark.parametrize("column", [pl.Series([[1]]), pl.Series([b"\xff"]), pl.Series([1])])
def test_parquet_texts_that_are_no_texts(tmp_path, column):
    pl.DataFrame({"text": column, "level0": ["a"], "level1": ["b"]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"text is .*not a text") as caught:
        load(str(tmp_path / "t.parquet"))
    assert "--text" in caught.value.remedy


def test_a_damaged_parquet_file(tmp_path):
    path = tmp_path / "t.parquet"
    pl.DataFrame({"text": [f"text {n}" for n in range(999)], "level0": "a", "level1": "b"}).write_parquet(path)
    whole = path.read_bytes()
    for damaged in (whole[:-100], whole[:100] + b"\0" * 200 + whole[300:], whole[:4] + whole[500:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"cannot read .*t\.parquet as parquet") as caught:
            load(str(path))
        assert "\n" not in str(caught.value)


def test_parquet_labels_that_are_nested(tmp_path):
    pl.DataFrame({"text": ["a"], "level0": [["a"]], "level1": ["b"]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"level0 is .*not a label"):
        load(str(tmp_path / "t.parquet"))


@pytest.mark.parametrize(
    "levels", [["text", "level1"], ["split", "level1"], ["level0", "level0"], ["level0", "nope"], []]
)
@pytest.mark.parametrize("text", ["text", "level1", "split"])
def test_names_that_cannot_be_columns(write, levels, text):
    path = write("t.csv", GOOD)
    with pytest.raises(DataError):
        load(path, levels=levels, text=text)


def test_texts_alone_are_read_whatever_else_there_is(write):
    assert read_texts(write("t.csv", "id,sentence\n1,one\n\n2,two\n"), text="sentence") == ["one", "two"]
    for content, said in [
        ('text\none\n" "\n', "row 2: the text is empty"),
        ("text\n", "has no rows"),
        ("a\nb\n", "no column"),
    ]:
        with pytest.raises(DataError, match=said):
            read_texts(write("t.csv", content))


def test_the_lines_of_a_txt_file_are_texts(write):
    assert read_texts(write("t.txt", "hello, world\nhow, now\n")) == ["hello, world", "how, now"]
    assert read_texts(write("t.txt", "one\r\ntwo".encode("utf-16"))) == ["one", "two"]
    for content, said in [("one\n\ntwo\n", "row 2: the text is empty"), (b"caf\xff\x00\n", "line 1: byte 0xFF is not")]:
        with pytest.raises(DataError, match=said):
            read_texts(write("t.txt", content))


def test_a_row_that_ends_early_is_no_text(write):
    with pytest.raises(DataError, match="row 1: fewer fields than columns"):
        read_texts(write("t.csv", "text,id\nfirst half\nsecond half,7\n"))
