"""Files of the user's own: what is read, and what each bad one is told."""

import bz2
import gzip
import json
import lzma
import re
import sys
import threading
import zipfile
from datetime import date
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data import DataError, load, read_texts
from data.files.locate import stem
from data.own_files import MISSING, read_table

GOOD = "text,level0,level1,split\none,01,1.50,train\ntwo,01,1.50,val\nthree,02,2.0,test\nfour,02,2.0,train\n"
ROWS = [
    ("one", "01", "1.50", "train"),
    ("two", "01", "1.50", "val"),
    ("three", "02", "2.0", "test"),
    ("four", "02", "2.0", "train"),
]
LINES = [
    '{"text": "one", "level0": "01", "level1": 1.50, "split": "train"}',
    '{"text": "two", "level0": "01", "level1": 1.50, "split": "val"}',
    "",
    '{"text": "three", "level0": "02", "level1": 2.0, "split": "test", "more": {"a": [1]}}',
    '{"split": "train", "level1": "2.0", "level0": "02", "text": "four"}',
]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", GOOD),
        ("t.csv", "\ufeff" + GOOD),
        ("t.csv", GOOD.replace("\n", "\r\n")),
        ("T.CSV", GOOD + "\n\n"),
        ("t.csv.gz", gzip.compress(GOOD.encode(), mtime=0)),
        ("t.tsv", GOOD.replace(",", "\t")),
        ("t.jsonl", "\n".join(LINES)),
        ("t.ndjson", "\r\n".join(LINES) + "\r\n"),
        ("t.jsonl.gz", gzip.compress("\n".join(LINES).encode(), mtime=0)),
    ],
)
def test_every_format_gives_the_same_rows_labels_as_written(write, name, content):
    assert load(write(name, content)).frame.rows() == ROWS


def test_parquet_gives_the_rows_whatever_plain_types_hold_the_labels(tmp_path):
    frame = pl.DataFrame(
        {
            "text": ["one", "two", "three"],
            "level0": [1, 1, 2],
            "level1": [date(2024, 1, 1), date(2024, 1, 1), date(2025, 1, 1)],
            "level2": [True, True, False],
            "split": pl.Series(["train", "val", "test"], dtype=pl.Categorical),
            "unused": [[1], [2], [3]],
        }
    )
    frame.write_parquet(tmp_path / "t.parquet")
    dataset = load(str(tmp_path / "t.parquet"))
    assert dataset.frame.row(2) == ("three", "2", "2025-01-01", "false", "test")
    assert dataset.levels == ("level0", "level1", "level2")


FIELD = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
FIELD = FIELD.filter(lambda value: value.strip() and value.strip().lower() not in (*MISSING, "-1"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(st.tuples(FIELD, FIELD), min_size=2, max_size=6))
def test_any_text_survives_every_format(tmp_path, pairs):
    frame = pl.DataFrame(
        {
            "text": [text for text, _ in pairs],
            "top": ["t"] * len(pairs),
            "low": [label for _, label in pairs],
            "split": ["train", "test", *["val"] * (len(pairs) - 2)],
        }
    )
    frame.write_csv(tmp_path / "any.csv", quote_style="always")
    frame.write_ndjson(tmp_path / "any.jsonl")
    frame.write_parquet(tmp_path / "any.parquet")
    for suffix in ("csv", "jsonl", "parquet"):
        assert load(str(tmp_path / f"any.{suffix}"), levels=["top", "low"]).frame.equals(frame), suffix


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


HEADER = "text,level0,level1,split\n"


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
        ("t.csv", GOOD.replace("test", "train"), "no row has split test", "column split"),
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


@pytest.mark.parametrize("column", [pl.Series([[1]]), pl.Series([b"a"]), pl.Series([1])])
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


def test_a_directory_and_a_missing_file(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="is a directory without files"):
        load(str(tmp_path / "folder.csv"))
    with pytest.raises(DataError, match=r"there is no file .*none\.csv"):
        load(str(tmp_path / "none.csv"))


@pytest.mark.parametrize(
    "levels", [["text", "level1"], ["split", "level1"], ["level0", "level0"], ["level0", "nope"], []]
)
@pytest.mark.parametrize("text", ["text", "level1", "split"])
def test_names_that_cannot_be_columns(write, levels, text):
    path = write("t.csv", GOOD)
    with pytest.raises(DataError):
        load(path, levels=levels, text=text)


def test_a_pattern_reads_several_files(write, tmp_path):
    write("part-1.csv", GOOD)
    write("part-2.csv", HEADER + "five,01,1.50,train\n")
    assert load(str(tmp_path / "part-*.csv")).frame.height == 5
    with pytest.raises(DataError, match="there is no file"):
        load(str(tmp_path / "none-*.csv"))


@pytest.mark.parametrize("name", ["part [1].csv", "what?.csv", "a*.csv", "100%.csv", "ünï çödé.csv"])
def test_a_file_that_exists_is_meant_literally(write, name):
    path = write(name, GOOD)
    write("part 1.csv", GOOD + "not this,01,1.50,train\n")
    assert load(path).frame.rows() == ROWS


@pytest.mark.parametrize(
    "name", ["x" * 5_000 + ".csv", "x" * 5_000, "a\0b.csv", "a**b.csv", "~nobody-of-this-name/t.csv"]
)
def test_names_that_no_file_can_have(name):
    with pytest.raises(DataError, match="no file") as caught:
        load(name)
    assert len(str(caught.value)) < 400


def test_a_home_folder_is_understood(write, monkeypatch, tmp_path):
    write("t.csv", GOOD)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load("~/t.csv").name == "t"


@pytest.fixture
def server(tmp_path):
    class Ranges(SimpleHTTPRequestHandler):
        """Answers the ranges of bytes that polars asks for."""

        def do_GET(self):
            path = tmp_path / self.path.lstrip("/")
            if not path.is_file():
                self.send_error(404)
                return
            content = path.read_bytes()
            first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
            start = int(first) if first else max(0, len(content) - int(last))
            part = content[start : int(last) + 1 if first and last else None]
            self.send_response(206)
            self.send_header("Content-Length", str(len(part)))
            self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(content)}")
            self.end_headers()
            self.wfile.write(part)

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=str(tmp_path))) as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


def test_a_url_is_read_as_a_file_is(write, server, tmp_path):
    local = load(write("t.csv", GOOD))
    write("t.jsonl", "\n".join(LINES))
    local.frame.write_parquet(tmp_path / "t.parquet")
    assert load(f"{server}/t.csv").id == local.id
    assert load(f"{server}/t.parquet").id == local.id
    assert load(f"{server}/t.jsonl").id == local.id


def test_a_url_that_is_not_there_is_told_in_one_line(server):
    with pytest.raises(DataError, match="cannot read http") as caught:
        load(f"{server}/none.csv")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("some/where/My File.v2.csv", "My File.v2"),
        ("hf://datasets/owner/set@main/train.jsonl.gz", "train"),
        ("s3://bucket/a/b.parquet?version=1", "b"),
    ],
)
def test_a_dataset_is_called_after_its_file(source, name):
    assert stem(source) == name


def test_texts_alone_are_read_whatever_else_there_is(write):
    assert read_texts(write("t.csv", "id,sentence\n1,one\n\n2,two\n"), text="sentence") == ["one", "two"]
    for content, said in [
        ('text\none\n" "\n', "row 2: the text is empty"),
        ("text\n", "has no rows"),
        ("a\nb\n", "no column"),
    ]:
        with pytest.raises(DataError, match=said):
            read_texts(write("t.csv", content))


def test_nothing_is_written_beside_what_is_read(write, tmp_path):
    path = write("t.csv", GOOD)
    read_table(path)
    assert [file.name for file in tmp_path.iterdir()] == ["t.csv"]


def test_the_lines_of_a_txt_file_are_texts(write):
    assert read_texts(write("t.txt", "hello, world\nhow, now\n")) == ["hello, world", "how, now"]
    assert read_texts(write("t.txt", "one\r\ntwo".encode("utf-16"))) == ["one", "two"]
    for content, said in [("one\n\ntwo\n", "row 2: the text is empty"), (b"caf\xff\x00\n", "line 1: byte 0xFF is not")]:
        with pytest.raises(DataError, match=said):
            read_texts(write("t.txt", content))


def test_a_row_that_ends_early_is_no_text(write):
    with pytest.raises(DataError, match="row 1: fewer fields than columns"):
        read_texts(write("t.csv", "text,id\nfirst half\nsecond half,7\n"))


SWALLOWED = [f"row {n},a{n % 3},b{n % 6},train" for n in range(300)]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_marks_escaped_by_backslashes_lose_no_rows(write, mark):
    rows = list(SWALLOWED)
    rows[50], rows[250] = '"one 5\\" wide",a1,b1,train', '"say \\"hi\\" now",a1,b1,train'
    content = "\n".join(["text,level0,level1,split", *rows, "x,a1,b1,test"]).replace(",", mark)
    frame = load(write("t.csv", content)).frame
    assert frame.height == 301
    assert frame["text"][50] == 'one 5" wide' and frame["text"][250] == 'say "hi" now'


@pytest.mark.parametrize(
    ("first", "second"),
    [('"one 5,a1,b1,train', 'wide 5",a1,b1,train'), ('"one,a1,b1,train', 'two,a1,"b1",train')],
)
@pytest.mark.parametrize("apart", [1, 2, 200])
def test_a_mark_that_swallows_rows_is_named(write, first, second, apart):
    rows = list(SWALLOWED)
    rows[50], rows[50 + apart] = first, second
    with pytest.raises(DataError, match=r"row 51 \(line 52\): a quot"):
        load(write("t.csv", "text,level0,level1,split\n" + "\n".join(rows)))


def test_texts_of_several_lines_with_separators_are_texts(write):
    poem = '"Dear John,\nhow are you, and yours,\nin May, in June, and in July,\nbye",a1,b1,test'
    frame = load(write("t.csv", "text,level0,level1,split\n" + "\n".join([poem, *SWALLOWED]))).frame
    assert frame.height == 301 and frame["text"][0].count("\n") == 3
    assert read_texts(write("u.csv", 'text,id\n"a,\nb,\nc",1\n"d,\ne",2\n')) == ["a,\nb,\nc", "d,\ne"]


def test_an_inch_mark_is_a_character(write):
    frame = load(write("t.csv", GOOD + 'the 5" pipe,02,2.0,test\n')).frame
    assert frame["text"][4] == 'the 5" pipe'


@pytest.mark.parametrize(
    ("encoding", "said"),
    [("utf-8-sig", None), ("utf-16", "UTF-16"), ("utf-16-be", "UTF-16-BE"), ("cp1252", "Windows-1252")],
)
def test_encodings_are_found_and_said(write, encoding, said):
    dataset = load(write("t.csv", (GOOD + "Größe, – 5 €,02,2.0,test\n".replace(", –", " –")).encode(encoding)))
    assert dataset.frame["text"][4] == "Größe – 5 €"
    assert (said is None) == (not any("encoded" in note or "1252" in note for note in dataset.warnings))
    assert said is None or any(said in note for note in dataset.warnings)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_files(write, pack):
    suffix = {gzip: "gz", bz2: "bz2", lzma: "xz"}[sys.modules[pack.__module__.removeprefix("_")]]
    assert load(write(f"t.csv.{suffix}", pack(GOOD.encode()))).frame.rows() == ROWS
    assert load(write(f"t.jsonl.{suffix}", pack("\n".join(LINES).encode()))).frame.rows() == ROWS


def test_a_zip_of_one_file_and_zst(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.csv.zip", "w") as archive:
        archive.writestr("inner.csv", GOOD)
    assert load(str(tmp_path / "t.csv.zip")).frame.rows() == ROWS
    pl.DataFrame(ROWS, schema=["text", "level0", "level1", "split"], orient="row").write_csv(
        tmp_path / "u.csv.zst", compression="zstd", check_extension=False
    )
    assert load(str(tmp_path / "u.csv.zst")).frame.rows() == ROWS
    with zipfile.ZipFile(tmp_path / "t.csv.zip", "a") as archive:
        archive.writestr("second.csv", GOOD)
    with pytest.raises(DataError, match="holds 2 files"):
        load(str(tmp_path / "t.csv.zip"))


def test_excel(tmp_path):
    frame = pl.DataFrame({"text": ["one", "two", "three"], "level0": [1, 1, 2], "level1": ["a", "a", "b"]})
    frame.with_columns(split=pl.Series(["train", "val", "test"])).write_excel(tmp_path / "t.xlsx")
    assert load(str(tmp_path / "t.xlsx")).frame.row(2) == ("three", "2", "b", "test")


@pytest.mark.parametrize(
    "shaped",
    [
        lambda rows: rows,
        lambda rows: {f"q{n}": row for n, row in enumerate(rows)},
        lambda rows: {name: [row[name] for row in rows] for name in rows[0]},
        lambda rows: {name: {str(n): row[name] for n, row in enumerate(rows)} for name in rows[0]},
        lambda rows: {"version": 1, "data": rows},
        lambda rows: {
            s: [{k: v for k, v in row.items() if k != "split"} for row in rows if row["split"] == s]
            for s in ("train", "val", "test")
        },
    ],
)
def test_json_in_each_of_its_shapes(write, shaped):
    rows = [dict(zip(("text", "level0", "level1", "split"), row, strict=True)) for row in ROWS]
    assert sorted(load(write("t.json", json.dumps(shaped(rows)))).frame.rows()) == sorted(ROWS)
    assert load(write("t.json", "\n".join(json.dumps(row) for row in rows))).frame.rows() == ROWS
