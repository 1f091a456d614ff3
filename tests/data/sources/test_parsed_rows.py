"""Rows of a package are parsed once per release of it, and what is kept is never taken for another release's."""

import os

import polars as pl
import pytest

from data.sources.parsed_rows import kept_rows

FRAME = pl.DataFrame({"text": ["one", "two\n", None], "split": ["train", "test", ""]}, schema_overrides={"text": str})


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "package"
    (folder / "__pycache__").mkdir(parents=True)
    (folder / "table.xml").write_text("<a/>")
    return folder


@pytest.fixture
def kept(package, tmp_path):
    """A call that returns the frame and how often it was parsed so far."""
    parsed = []

    def parse():
        parsed.append(1)
        return FRAME

    def call(*settings):
        return kept_rows(parse, package, settings, tmp_path / "kept"), len(parsed)

    return call


def test_it_is_parsed_once_and_read_back_as_it_was(kept, package):
    assert kept("a")[1] == 1
    (package / "__pycache__" / "x.pyc").write_bytes(b"made by Python")
    frame, times = kept("a")
    assert times == 1
    assert frame.equals(FRAME) and frame.schema == FRAME.schema


def test_another_release_and_other_settings_are_parsed_anew(kept, package):
    assert kept("a")[1] == 1
    assert kept("b")[1] == 2
    (package / "table.xml").write_text("<b/>")
    assert kept("a")[1] == 3
    (package / "table.xml").write_text("<a/>")
    assert kept("a")[1] == 3


def test_a_damaged_file_is_parsed_anew_and_replaced(kept, tmp_path):
    kept("a")
    (path,) = (tmp_path / "kept").iterdir()
    whole = path.read_bytes()
    for damaged in (b"", whole[:10], whole[:-1], whole[:30] + bytes([whole[30] ^ 1]) + whole[31:]):
        path.write_bytes(damaged)
        before = kept("a")[1]
        assert path.read_bytes() == whole
        assert kept("a")[1] == before
    assert before == 5


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_costs_only_time(kept, tmp_path):
    (tmp_path / "kept").mkdir(mode=0o555)
    assert [kept("a")[1], kept("a")[1]] == [1, 2]


def test_a_file_in_the_place_of_the_folder_costs_only_time(kept, tmp_path):
    (tmp_path / "kept").write_text("not a folder")
    assert [kept("a")[1], kept("a")[1]] == [1, 2]
