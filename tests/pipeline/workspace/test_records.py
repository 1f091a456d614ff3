"""JSON records and kept arrays: what was written is read, or an error names the file; never another value."""

import json
import os
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.workspace.artifacts import Artifacts, BackboneSource, Current, DatasetSource
from pipeline.workspace.kept_arrays import keep_arrays, read_arrays
from pipeline.workspace.records import DamagedError, NewerError, read_kept, read_record, write_record

CURRENT = Current(
    DatasetSource("/data/own.csv", ("area", "topic"), limit=1500),
    "own-0123456789ab",
    BackboneSource("minilm", "minilm", ""),
    {"6": "minilm-0123456789ab"},
)
ARRAYS = {"labels": np.arange(12).reshape(6, 2), "facts": np.array('{"k": 5}'), "cosines": np.ones((2, 3), np.float32)}
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)


def written(folder):
    path = folder / "current.json"
    write_record(path, asdict(CURRENT))
    return path


def test_a_record_is_read_as_it_was_written_and_stays_readable_json(tmp_path):
    path = written(tmp_path)
    assert read_record(path, Current) == CURRENT
    assert json.loads(path.read_text())["dataset_id"] == CURRENT.dataset_id
    assert read_record(tmp_path / "absent.json", Current) is None


@same_folder
@given(data=st.data())
def test_a_record_with_a_changed_bit_is_the_same_value_or_an_error_that_names_it(tmp_path, data):
    path = written(tmp_path)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        assert read_record(path, Current) == CURRENT
    except PipelineError as error:
        assert str(path) in str(error)
        assert error.remedy


@same_folder
@given(data=st.data())
def test_kept_arrays_with_a_changed_bit_are_the_same_or_none(tmp_path, caplog, data):
    path = tmp_path / "answers.npz"
    keep_arrays(path, ARRAYS)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    caplog.clear()
    found = read_arrays(path, ARRAYS)
    assert found is None or all(np.array_equal(found[name], ARRAYS[name]) for name in ARRAYS)
    assert str(path) in caplog.text


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", bytes(500), b"garbage" * 50])
def test_what_is_no_archive_is_said_and_made_again(tmp_path, caplog, content):
    path = tmp_path / "map.npz"
    path.write_bytes(content)
    assert read_arrays(path, ARRAYS) is None
    assert f"{path} is damaged" in caplog.text


def test_numpy_reads_kept_arrays_and_files_without_a_digest_are_read_with_one_line(tmp_path, caplog):
    path = tmp_path / "answers.npz"
    keep_arrays(path, ARRAYS, compress=False)
    with np.load(path) as plain:
        assert np.array_equal(plain["labels"], ARRAYS["labels"])
    np.savez(path, **ARRAYS)
    assert set(read_arrays(path, ARRAYS)) == set(ARRAYS)
    assert "before kept arrays had a digest" in caplog.text
    assert read_arrays(path, ("labels",)) is None


def test_a_record_without_a_digest_is_read_with_one_line(tmp_path, caplog):
    path = tmp_path / "current.json"
    path.write_text(json.dumps(asdict(CURRENT)))
    assert read_record(path, Current) == CURRENT
    assert "before records had a digest" in caplog.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stores": 3}, "stores is 3, not an object"),
        ({"dataset_id": None}, "dataset_id is null, not text"),
        ({"backbone": {"name": "minilm", "sorce": "minilm", "prompt": ""}}, "backbone.sorce is not known"),
        ({"backbone": {"name": "minilm", "source": "minilm"}}, "backbone.prompt is missing"),
        ({"dataset": {"source": "a.csv", "limit": True}}, "dataset.limit is true, not a whole number or null"),
        ({"dataset": {"source": "a.csv", "levels": ["x", 3]}}, "dataset.levels is"),
    ],
)
def test_a_wrong_type_is_named_with_file_and_key(tmp_path, change, said):
    path = tmp_path / "current.json"
    path.write_text(json.dumps({**asdict(CURRENT), **change}))
    with pytest.raises(DamagedError, match=r"current\.json") as caught:
        read_record(path, Current)
    assert said in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[1]", "3", "null", "[" * 100_000, '{"a": NaN}', "\x00" * 40])
def test_other_json_is_damage(tmp_path, content):
    path = tmp_path / "current.json"
    path.write_text(content)
    with pytest.raises(DamagedError, match=r"current\.json"):
        read_record(path, Current)


def test_a_newer_format_is_refused_by_name_and_never_computed_again(tmp_path):
    path = written(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    for read in (read_record, read_kept):
        with pytest.raises(NewerError, match="has format 2, this release reads format 1"):
            read(path, Current)


def test_a_folder_a_pipe_and_a_link_to_nothing_are_no_records(tmp_path):
    folder, pipe, link = tmp_path / "folder", tmp_path / "pipe", tmp_path / "link"
    folder.mkdir()
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "nowhere")
    for path in (folder, pipe, link):
        with pytest.raises(DamagedError, match=path.name):
            read_record(path, Current)


def test_one_damaged_source_leaves_the_others(tmp_path, caplog):
    artifacts = Artifacts(tmp_path)
    artifacts.remember(CURRENT)
    (tmp_path / "data" / "other-0123.json").write_text('{"source": 3}')
    (tmp_path / "features" / "minilm.json").write_text('{"name": "minilm", "sorce": "minilm", "prompt": ""}')
    assert artifacts.dataset_source("own") == CURRENT.dataset
    assert artifacts.backbone_source("minilm").prompt == ""
    for name in ("other-0123.json", "minilm.json"):
        assert name in caplog.text


def test_a_name_means_the_whole_dataset_not_what_was_embedded_last(tmp_path, caplog):
    artifacts = Artifacts(tmp_path)
    whole, part = DatasetSource("clinc"), DatasetSource("clinc", limit=1500)
    stores = {"6": "minilm-0123456789ab"}
    artifacts.remember(Current(whole, "clinc-aaaaaaaaaaaa", CURRENT.backbone, stores))
    artifacts.remember(Current(part, "clinc-bbbbbbbbbbbb", CURRENT.backbone, stores))
    assert artifacts.dataset_source(None) == part
    assert artifacts.dataset_source("clinc") == whole
    assert "clinc is taken for clinc-aaaaaaaaaaaa, embedded whole; others here: clinc-bbbbbbbbbbbb" in caplog.text
    assert artifacts.dataset_source("clinc-bbbbbbbbbbbb") == part
    assert artifacts.ids_answering("clinc") == [["clinc-aaaaaaaaaaaa"], ["clinc-bbbbbbbbbbbb"]]


def test_what_was_only_embedded_in_part_is_said_to_be_a_part(tmp_path, caplog):
    artifacts = Artifacts(tmp_path)
    artifacts.remember(Current(DatasetSource("clinc", limit=1500), "clinc-b", CURRENT.backbone, {}))
    assert artifacts.dataset_source("clinc").limit == 1500
    assert "clinc is taken for clinc-b, embedded with --limit 1500" in caplog.text


def test_a_key_that_another_release_wrote_is_not_called_damage(tmp_path):
    path = tmp_path / "current.json"
    write_record(path, {**asdict(CURRENT), "colour": "blue"})
    with pytest.raises(PipelineError, match="was written by another release: colour is not known") as caught:
        read_record(path, Current)
    assert not isinstance(caught.value, DamagedError)
