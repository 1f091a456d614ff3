"""Random files, whole and damaged, against a slow reader: every record comes out, or the file is refused with a row.

`python tests/data/files/test_random_files.py 5000 [FIRST]` tries as many as are asked for, from seed FIRST on.
"""

import csv
import io
import json
import random
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from data.errors import DataError
from data.files.read import open_source
from data.files.records import FileFormat

PIECES = (
    "the", "a 5", "pipe", "wide", "hello", "Dear John,", "1,5", "x;y", "p|q", "é", "中文", "🙂", " ", "  ",
    '"', '5"', '\\"', "\\", "C:\\dir\\", "\n", "\r\n", "\t", "and/or", "v1.2", "'", "NULL", "-1", "\u2028", "\x0b",
)  # fmt: skip
LABELS = (("area", ("cards", "loans", "other, misc", "NA")), ("topic", ("c1", "c2", "l1", "o\u00e9")))
SEPARATORS = (",", ";", "\t", "|")


def table(rng):
    """A random table: header and rows."""
    header = ["text"] + [name for name, _ in LABELS[: rng.randint(1, 2)]] + ["split"] * rng.randint(0, 1)
    rows = []
    for number in range(rng.randint(2, 40)):
        text = " ".join(rng.choice(PIECES) for _ in range(rng.randint(1, 8)))
        text = f"{number} {text}" if rng.random() < 0.3 else f"{text} {number}"
        labels = [rng.choice(values) for _, values in LABELS[: len([h for h in header if h in ("area", "topic")])]]
        rows.append([text, *labels] + [rng.choice(("train", "test"))] * ("split" in header))
    if rng.random() < 0.3:
        header, rows = ["id", *header], [[f"d-{number}", *row] for number, row in enumerate(rows)]
    return header, rows


def doubled(rng, separator, rows):
    stream = io.StringIO()
    writer = csv.writer(
        stream,
        delimiter=separator,
        quoting=rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)),
        lineterminator=rng.choice(("\n", "\r\n")),
    )
    writer.writerows(rows)
    return stream.getvalue()


def backslash(rng, separator, rows):
    """As Spark writes it."""

    def field(value):
        if not re.search(f'["\r\n\\\\{re.escape(separator)}]', value):
            return value
        return '"' + re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + ("\\" + m[2] if m[2] else ""), value) + '"'

    return "".join(separator.join(map(field, row)) + "\n" for row in rows)


def literal(rng, separator, rows):
    """Fields joined by tabs; what would break a line is taken out first."""
    for row in rows:
        row[:] = [re.sub(r"[\t\r\n]", " ", value) for value in row]
    return "".join("\t".join(row) + "\n" for row in rows)


def slow(content, separator, escape=None):  # noqa: C901
    """One character at a time: what RFC 4180 says, and pandas reads, with or without an escape character."""
    rows, row, value, state, at = [], [], "", "start", 0
    while at < len(content):
        one = content[at]
        at += 1
        if escape and one == escape and re.match(r'\\*"', content[at:]):
            value, state, at = value + content[at], "inside" if state == "inside" else "plain", at + 1
            continue
        if state == "inside":
            if one != '"':
                value += one
            elif content[at : at + 1] == '"' and escape is None:
                value, at = value + '"', at + 1
            else:
                state = "plain"
        elif one == '"' and state == "start":
            state = "inside"
        elif one == separator:
            row, value, state = [*row, value], "", "start"
        elif one in "\r\n":
            at += one == "\r" and content[at : at + 1] == "\n"
            if row or value or state != "start":
                rows.append([*row, value])
            row, value, state = [], "", "start"
        else:
            value, state = value + one, "plain"
    if row or value or state != "start":
        rows.append([*row, value])
    return rows


def damaged(rng, content):
    """`content` with a quotation mark more or less, a line break more, or its end cut off."""
    what = rng.choice(("less", "more", "break", "cut"))
    marks = [found.start() for found in re.finditer('"', content)]
    if what == "less" and marks:
        at = rng.choice(marks)
        return what, content[:at] + content[at + 1 :]
    at = rng.randrange(len(content))
    if what == "cut":
        return what, content[:at]
    return what, content[:at] + ("\n" if what == "break" else '"') + content[at:]


def as_read(rows, width):
    """Rows as a frame holds them: short ones filled up, nothing as None, empty rows at the end left out."""
    made = [tuple(value or None for value in (row + [""] * width)[:width]) for row in rows]
    while made and width > 1 and not any(made[-1]):
        made.pop()
    return made


def one_file(seed, folder):
    """Write, damage and read one file; return what came of it, or raise AssertionError."""
    rng = random.Random(seed)
    header, rows = table(rng)
    kind = rng.choice(("doubled", "doubled", "backslash", "literal", "jsonl", "json", "parquet"))
    if kind in ("jsonl", "json", "parquet"):
        path = folder / f"t.{kind}"
        frame = pl.DataFrame(rows, schema=header, orient="row")
        records = frame.to_dicts()
        if kind == "jsonl":
            blank = rng.choice(("\n", "\n\n", "\r\n"))
            path.write_bytes(blank.join(json.dumps(r, ensure_ascii=rng.random() < 0.5) for r in records).encode())
        elif kind == "json":
            path.write_text(json.dumps(records, indent=rng.choice((None, 1))))
        else:
            frame.write_parquet(path)
        assert open_source(str(path)).frame.rows() == frame.rows()
        return kind
    separator = "\t" if kind == "literal" else rng.choice(SEPARATORS)
    content = {"doubled": doubled, "backslash": backslash, "literal": literal}[kind](rng, separator, [header, *rows])
    meant = as_read(rows, len(header))
    harmed = ""
    if rng.random() < 0.4:
        harmed, content = damaged(rng, content)
    path = folder / ("t.tsv" if separator == "\t" else "t.csv")
    path.write_bytes(content.encode(rng.choice(("utf-8", "utf-8-sig", "utf-16"))))
    try:
        found = open_source(str(path)).frame
    except DataError as error:
        assert re.search(r"row|header|empty|blank|ways|separated|columns", str(error)), error
        return f"refused, {kind}" if not harmed else "refused, damaged"
    if not harmed:
        if kind == "backslash" and not re.search(r'(?<!\\)(\\\\)*\\"', content):
            meant = as_read(slow(content, separator)[1:], len(header))  # no mark is escaped: a file as RFC 4180 has it
        assert found.rows() == meant, (kind, separator)
        return kind
    readings = [slow(content, separator), slow(content, separator, "\\")]
    if separator == "\t":
        readings.append([line.split("\t") for line in re.split("\r\n|\r|\n", content) if line])
    expected = [as_read(reading[1:], found.width) for reading in readings]
    assert found.rows() in expected, ("damaged", kind, separator)
    assert harmed == "cut" or found.height >= len(meant) or found.width != len(header), ("rows lost", kind, separator)
    return "damaged, read"


@pytest.mark.parametrize("start", range(0, 400, 100))
def test_every_record_comes_out_or_a_row_is_named(start, tmp_path):
    seen = Counter(one_file(seed, tmp_path) for seed in range(start, start + 100))
    assert seen["refused, doubled"] + seen["refused, literal"] <= 3


def read(folder, content, **options):
    path = folder / "t.csv"
    path.write_text(content)
    return open_source(str(path), **options).frame.rows()


@pytest.mark.parametrize("content", ["\n", "\r\n\r\n", "\ufeff", "\ufeff\n"])
def test_a_file_of_blank_lines_is_refused(content, tmp_path):
    with pytest.raises(DataError, match="nothing but blank lines"):
        read(tmp_path, content)


def test_blank_lines_before_the_header_are_left_out(tmp_path):
    assert read(tmp_path, "\n\ntext,area\n\nhello,a\n") == [("hello", "a")]


def test_a_swallowed_record_whose_text_has_line_breaks_is_found(tmp_path):
    content = 'text;area\n"0 "";loans\npipe \n \n x 1";loans\n1,5 t 2;loans\nlast;cards\nmore;cards\n'
    with pytest.raises(DataError, match="row 1"):
        read(tmp_path, content)


def test_a_field_may_end_in_an_escaped_backslash(tmp_path):
    content = 'text,area\n"5\\" wide",a\n"C:\\dir\\\\",b\n'
    assert read(tmp_path, content) == [('5" wide', "a"), ("C:\\dir\\", "b")]


def test_a_file_that_escapes_marks_in_two_ways_is_refused_with_the_row(tmp_path):
    content = 'text,area\n"5\\" wide",a\n"a ""b"" c",b\n'
    with pytest.raises(DataError, match=r"row 2 \(line 3\).*two ways"):
        read(tmp_path, content)
    both = [('5" wide', "a"), ('a "b" c', "b")]
    assert read(tmp_path, content, format=FileFormat(quotes="backslash")) == both


if __name__ == "__main__":
    count, first = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with tempfile.TemporaryDirectory() as folder:
        outcomes = Counter()
        for number in range(first, first + count):
            try:
                outcomes[one_file(number, Path(folder))] += 1
            except Exception as error:
                outcomes["WRONG"] += 1
                print(f"seed {number}: {error!r:.300}")
    print(dict(outcomes))
