"""Codes that lost their zeros and paths in several spellings: read as they were meant, said, or refused."""

import json

import polars as pl
import pytest

from data import DataError, Description, load


def read(path, **options):
    return load(str(path), description=Description(**options))


def products(codes):
    return [(f"product number {n} of a kind", code) for n, code in enumerate(codes * 3)]


CODES = [f"{chapter:02}{heading:02}{n:02}" for chapter in range(1, 30) for heading in (1, 2) for n in (10, 21)]


@pytest.mark.parametrize("digits", [(2, 4, 6), (2, 6), (6,)])
def test_codes_stored_as_numbers_have_the_levels_of_codes_stored_as_text(tmp_path, digits):
    texts, codes = zip(*products(CODES), strict=True)
    pl.DataFrame({"text": texts, "code": codes}).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({"text": texts, "code": [int(code) for code in codes]}).write_parquet(tmp_path / "b.parquet")
    text, number = (read(tmp_path / f"{name}.parquet", code="code", digits=digits) for name in "ab")
    assert text.frame.equals(number.frame)
    assert any("lost a leading zero" in note for note in number.warnings)
    assert not any("zero" in note for note in text.warnings)


@pytest.mark.parametrize("digits", [(2, 4), (2,)])
def test_codes_a_digit_shorter_than_others_are_refused_where_no_level_says_how_long_they_are(tmp_path, digits):
    """Codes of industries: 11114 is not divided further, and lost no zero."""
    industries = [11114, 11115, 11133, 23611, 311511, 311512, 722511, 722513]
    for name, codes in (("customs", [int(code) for code in CODES]), ("industries", industries * 10)):
        texts, codes = zip(*products(codes), strict=True)
        pl.DataFrame({"text": texts, "code": codes}).write_parquet(tmp_path / f"{name}.parquet")
        with pytest.raises(DataError, match="have 5 digits, others 6") as caught:
            read(tmp_path / f"{name}.parquet", code="code", digits=digits)
        asked = ",".join(map(str, digits))
        assert caught.value.remedy.endswith(f"of coarser labels: --digits {asked},5,6")
    coarser = read(tmp_path / "industries.parquet", code="code", digits=(*digits, 5, 6))
    assert coarser.hierarchy.classes[0] == ("11", "23", "31", "72")


def test_codes_that_begin_longer_ones_are_coarser_labels(tmp_path):
    codes = [f"{n}{end}" for n in range(11111, 11131) for end in ("", "0", "1")]
    texts, codes = zip(*products(codes), strict=True)
    pl.DataFrame({"text": texts, "code": [int(code) for code in codes]}).write_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", code="code", digits=(2, 4)).hierarchy.classes[0] == ("11",)


def test_numbers_one_digit_short_of_the_last_level_are_said(tmp_path):
    texts, codes = zip(*products([*range(110, 119), *range(1110, 1130)]), strict=True)
    pl.DataFrame({"text": texts, "code": codes}).write_parquet(tmp_path / "a.parquet")
    dataset = read(tmp_path / "a.parquet", code="code", digits=(1, 2, 3, 4))
    assert any("27 codes in 'code' have 3 digits, others 4" in note for note in dataset.warnings)


def test_numbers_with_dots_have_no_common_places(tmp_path):
    texts, codes = zip(*products([1.1, 1.11, 11.0, 11.1, 12.5] * 6), strict=True)
    pl.DataFrame({"text": texts, "code": codes}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"'1\.1' and '11\.0'"):
        read(tmp_path / "a.parquet", code="code", digits=(2, 3))
    padded = [f"{code:05.2f}" for code in codes]
    pl.DataFrame({"text": texts, "code": padded}).write_parquet(tmp_path / "b.parquet")
    assert read(tmp_path / "b.parquet", code="code", digits=(2, 4)).hierarchy.classes[0] == ("01", "11", "12")


TREE = [("art", "film"), ("art", "song"), ("law", "court"), ("law", "crime")]


def of_paths(write, paths):
    rows = [{"text": f"text number {n} about it", "label": paths[n % len(paths)]} for n in range(80)]
    return read(write("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))


@pytest.mark.parametrize("mark", [" > ", ">", " -> ", "->", " => ", "=>", " \u203a ", " » ", "→", " >> "])
def test_no_part_of_a_mark_stays_in_a_label(write, mark):
    assert of_paths(write, [mark.join(path) for path in TREE]).hierarchy.classes[0] == ("art", "law")


def test_paths_with_and_without_blanks_are_the_same_paths(write):
    mixed = [" > ".join(path) for path in TREE] + [">".join(path) for path in TREE[1:]]
    dataset = of_paths(write, mixed)
    assert dataset.hierarchy.sizes == (2, 4) and not dataset.frame.get_column("label1").null_count()


def test_a_label_that_holds_the_mark_without_blanks_stays_one(write):
    dataset = of_paths(write, [" > ".join(path) for path in TREE] + ["size >5"])
    assert dataset.hierarchy.classes[0] == ("art", "law", "size >5")


def test_numbers_with_and_without_leading_zeros_are_said_to_be_alike(write):
    rows = "".join(f"text number {n} of it,{['007', '7', '11', '110', '0'][n % 5]}\n" for n in range(100))
    said = [note for note in read(write("a.csv", "text,label\n" + rows)).warnings if "differ only" in note]
    assert len(said) == 1 and said[0].startswith("2 classes ('007', '7')")
