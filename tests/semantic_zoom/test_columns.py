"""Labels and texts in the forms that people's tables have: by name whatever the order, numbers as they are meant."""

from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import cache
import heads
from data import DataError
from semantic_zoom import Zoom
from semantic_zoom.columns import label_frame, text_list
from tests.pipeline.small_dataset import rows

ROWS = rows()
TEXTS = [row[0] for row in ROWS]
LABELS = pd.DataFrame({"area": [row[1] for row in ROWS], "topic": [row[2] for row in ROWS]})
TURNED = LABELS[["topic", "area"]]


@pytest.fixture(scope="module")
def zoom(tmp_path_factory):
    return Zoom.fit(TEXTS, LABELS, method="lda", store=tmp_path_factory.mktemp("features"))


@pytest.mark.parametrize("level", ["area", "topic"])
def test_columns_of_labels_are_taken_by_name(zoom, level):
    expected = zoom.score(TEXTS, LABELS, level=level)
    assert expected > 0.5
    for labels in (TURNED, TURNED.assign(id=1), pl.from_pandas(TURNED), TURNED.to_dict("records")):
        assert zoom.score(TEXTS, labels, level=level) == expected
    assert zoom.score(TEXTS, TURNED.to_dict("list"), level=level) == expected


def test_columns_to_fit_and_to_validate_are_taken_by_name(zoom):
    again = Zoom.fit(
        TEXTS, TURNED, levels=["area", "topic"], validation=(TEXTS, TURNED), method="lda", store=zoom.store
    )
    assert again.record["classes"] == zoom.record["classes"]


def test_the_estimator_scores_columns_by_name(zoom):
    estimator = pytest.importorskip("semantic_zoom.estimator").ZoomTransformer(method="lda", store=zoom.store)
    estimator.fit(TEXTS, LABELS)
    assert estimator.score(TEXTS, TURNED) == estimator.score(TEXTS, LABELS) > 0.5


@pytest.mark.parametrize(
    "column",
    [
        [1, 2, 1],
        [1.0, 2.0, 1.0],
        np.array([1, 2, 1], np.float32),
        pd.Series([1, 2, 1], dtype="category"),
        pa.array([1, 2, 1]),
        list(np.array([1, 2, 1])[:, None].reshape(3, 1)),
    ],
)
def test_whole_numbers_are_one_class_however_they_are_held(column):
    assert label_frame(column, 3).to_series().to_list() == ["1", "2", "1"]


def test_a_missing_label_is_missing_in_every_type():
    for missing in (None, float("nan"), np.float32("nan"), pd.NA, pd.NaT, pa.scalar(None, pa.string())):
        assert label_frame([("a", "b"), ("a", missing)], 2)["level1"].to_list() == ["b", None]


def test_texts_of_arrow_are_texts():
    assert text_list(pa.array(TEXTS)) == TEXTS


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([b"x", b"y"], "bytes"),
        ([{"x", "i"}, {"y", "j"}], "without an order"),
        ({"x", "y"}, "not a column in order"),
        (pd.concat([LABELS[:2], LABELS[:2]], axis=1), "columns are named"),
    ],
)
def test_what_has_no_order_or_no_name_is_refused(labels, words):
    with pytest.raises(DataError, match=words):
        label_frame(labels, 2)


def test_labels_that_were_never_trained_are_refused(zoom):
    with pytest.raises(DataError, match="no label is a class of level topic"):
        zoom.score(TEXTS, LABELS.map(str.upper))
    with pytest.raises(DataError, match="no column 'area'"):
        zoom.score(TEXTS, LABELS[["topic"]])


@pytest.mark.parametrize("texts", [{"one": "two"}, {"one", "two"}])
def test_texts_without_an_order_are_refused(texts):
    with pytest.raises(DataError, match="not a column"):
        text_list(texts)


class Nameless:
    """A label that is told from others by its address alone."""


def test_frames_that_are_lazy_or_of_arrow_are_frames():
    frame = pl.from_pandas(LABELS)
    for labels in (frame.lazy(), frame.to_arrow()):
        assert label_frame(labels, len(ROWS)).equals(frame)
    texts = pl.DataFrame({"text": TEXTS})
    assert text_list(texts.lazy()) == text_list(texts.to_arrow()) == TEXTS


@pytest.mark.parametrize("missing", [Decimal("NaN"), np.datetime64("NaT"), np.timedelta64("NaT")])
def test_not_a_number_and_not_a_time_are_no_label(missing):
    assert label_frame([("a", "b"), ("a", missing)], 2)["level1"].to_list() == ["b", None]


@pytest.mark.parametrize("labels", [[Nameless(), Nameless()], ["a", "\ud800"], 5])
def test_what_is_no_label_is_refused(labels):
    with pytest.raises(DataError):
        label_frame(labels, 2)


def test_one_name_of_levels_is_no_list_of_letters():
    assert label_frame(["a", "b"], 2, "topic").columns == ["topic"]
    with pytest.raises(DataError, match="labels of 2 levels for the levels"):
        label_frame([("a", "b"), ("a", "c")], 2, "ab")


@pytest.mark.parametrize("texts", [None, 5, ["\u200b\u00ad"], ["\x00 "]])
def test_what_nobody_sees_is_no_text(texts):
    with pytest.raises(DataError, match="not a"):
        text_list(texts)


def test_a_finer_label_needs_a_coarser_one(tmp_path):
    paths = [("a", "b", "c"), ("a", None, "d")]
    with pytest.raises(DataError, match="row 2 has a label of level level2 and none of level level1"):
        Zoom.fit(["one", "two"], paths, method="lda", store=tmp_path)


@pytest.mark.parametrize(("call", "error"), [
    (lambda zoom: zoom.search(TEXTS[0], dim=0), heads.HeadsError),
    (lambda zoom: zoom.score(TEXTS, LABELS, level=True), DataError),
    (lambda zoom: Zoom.fit(TEXTS, LABELS, validation=(TEXTS, LABELS, 1), store=zoom.store), DataError),
    (lambda zoom: Zoom.fit(TEXTS, LABELS, device=None, store=zoom.store), cache.CacheError),
])  # fmt: skip
def test_arguments_that_are_none_are_refused(zoom, call, error):
    with pytest.raises(error):
        call(zoom)


def test_a_seed_of_numpy_is_saved_and_a_folder_that_is_there_is_named(zoom, tmp_path):
    again = Zoom.fit(TEXTS, LABELS, method="lda", seed=np.int64(3), store=zoom.store)
    again.save(tmp_path / "zoom")
    assert Zoom.load(tmp_path / "zoom").record["seed"] == 3
    for folder in (tmp_path / "zoom", "."):
        with pytest.raises(cache.CacheError, match="is there already"):
            again.save(folder)


def test_a_zoom_that_is_not_there_is_named_once(tmp_path):
    with pytest.raises(heads.HeadsError) as caught:
        Zoom.load(tmp_path / "missing")
    assert str(caught.value).count("missing") == 1


def test_a_zoom_shows_no_control_characters(zoom):
    assert "\x1b" not in repr(Zoom.fit(TEXTS, {"a\x1b[31m": LABELS["area"]}, method="lda", store=zoom.store))


def test_an_empty_variable_names_no_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("PIPELINE_ARTIFACTS", "")
    monkeypatch.chdir(tmp_path)
    Zoom.fit(TEXTS[:30], LABELS[:30], method="lda")
    assert [path.name for path in tmp_path.iterdir()] == ["artifacts"]
