"""Every kind of file gives the same rows, however it is encoded or compressed."""

import bz2
import gzip
import json
import lzma
import sys
import zipfile
from datetime import date, timedelta

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data import DataError, load
from data.checks import SEEN
from data.columns.level_columns import MISSING
from tests.data.good_file import GOOD, LINES, ROWS


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", GOOD),
        ("t.csv", "\ufeff" + GOOD),
        ("t.csv", GOOD.replace("\n", "\r\n")),
        ("T.CSV", GOOD + "\n\n"),
        ("t.tsv", GOOD.replace(",", "\t")),
        ("t.jsonl", "\n".join(LINES)),
        ("t.ndjson", "\r\n".join(LINES) + "\r\n"),
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
            "seconds": [timedelta(1), None, timedelta(2)],
        }
    )
    frame.write_parquet(tmp_path / "t.parquet")
    dataset = load(str(tmp_path / "t.parquet"))
    assert dataset.frame.row(2) == ("three", "2", "2025-01-01", "false", "test")
    assert dataset.levels == ("level0", "level1", "level2")


FIELD = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
FIELD = FIELD.filter(
    lambda value: pl.Series([value]).str.contains(SEEN)[0] and value.strip().lower() not in (*MISSING, "-1")
)


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
