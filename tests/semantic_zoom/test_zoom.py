"""The object as people use it, on real MiniLM weights."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from data import DataError
from heads import HeadsError
from semantic_zoom import Zoom
from tests.pipeline.small_dataset import rows

ROOT = Path(__file__).resolve().parents[2]
TRAIN, TEST = ([row for row in rows() if (row[3] == "test") is held] for held in (False, True))
TEXTS = [row[0] for row in TRAIN]
PATHS = [list(row[1:3]) for row in TRAIN]
NEW = [row[0] for row in TEST]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("artifacts") / "features"


@pytest.fixture(scope="module")
def zoom(store):
    return Zoom.fit(TEXTS, PATHS, epochs=4, store=store)


def test_every_form_of_texts_and_labels_gives_the_same_head(zoom, store):
    shards = sorted(store.glob("*/*.h5"))
    frame = pl.DataFrame(PATHS, schema=["level0", "level1"], orient="row")
    arrays = np.array(TEXTS), np.array(PATHS)
    forms = [
        (pl.Series(TEXTS), frame),
        (pd.Series(TEXTS, index=range(5, 5 + len(TEXTS))), frame.to_pandas()),
        (arrays[0], arrays[1]),
        ((text for text in TEXTS), [tuple(path) for path in PATHS]),
        (pl.DataFrame({"text": TEXTS}), frame),
    ]
    expected = Zoom.fit(TEXTS, PATHS, method="lda", store=store).vectors
    for texts, labels in forms:
        again = Zoom.fit(texts, labels, method="lda", store=store)
        if torch.cuda.is_available():  # which promises no bits
            np.testing.assert_allclose(again.vectors, expected, atol=1e-4)
        else:
            assert np.array_equal(again.vectors, expected)
        assert again.levels == zoom.levels == ("level0", "level1")
    zoom.encode(TEXTS)
    assert sorted(store.glob("*/*.h5")) == shards  # nothing was embedded twice


def test_it_shows_itself_in_a_line(zoom):
    shown = repr(zoom)
    assert "level0 > level1" in shown
    assert len(shown) < 150
    assert "\n" not in shown


def test_prefixes_are_the_truncated_vector_normalised(zoom):
    full = zoom.encode(NEW)
    for dim in zoom.dims:
        cut = full[:, :dim] / np.linalg.norm(full[:, :dim], axis=1, keepdims=True)
        np.testing.assert_allclose(zoom.encode(NEW, dim=dim), cut, atol=2e-6)


def test_predictions_are_paths_of_the_tree_and_score_counts_them(zoom):
    tree = {tuple(path) for path in PATHS}
    found = zoom.predict(NEW, dim=64)
    assert {p.path for p in found} <= tree
    assert all(0 <= fine <= coarse + 1e-6 <= 1 + 2e-6 for coarse, fine in (p.confidence for p in found))
    right = np.mean([p.path[1] == row[2] for p, row in zip(found, TEST, strict=True)])
    labels = [list(row[1:3]) for row in TEST]
    assert zoom.score(NEW, labels, dim=64) == right > 0.6
    assert zoom.score(NEW, labels, level="level0") > 0.8


def test_a_path_ends_where_the_tree_does(store):
    ended = PATHS[0][0]
    labels = [[top, None if top == ended else fine] for top, fine in PATHS]
    zoom = Zoom.fit(TEXTS, labels, epochs=4, store=store)
    found = zoom.predict(NEW)
    assert {p.path for p in found} <= {tuple(name for name in path if name) for path in labels}
    assert {len(p.path) for p in found} == {1, 2}
    assert all(len(p.confidence) == len(p.path) and np.isfinite(p.confidence).all() for p in found)


def test_search_is_the_exact_order_of_cosines(zoom):
    hits = zoom.search(NEW[:3], dim=64, top=5)
    cosines = zoom.encode(NEW[:3], dim=64) @ zoom.encode(TEXTS, dim=64).T
    for found, row in zip(hits, cosines, strict=True):
        np.testing.assert_allclose([hit.similarity for hit in found], -np.sort(-row)[:5], atol=1e-6)
        assert [hit.text for hit in found] == [TEXTS[hit.row] for hit in found]
        assert [list(hit.path) for hit in found] == [PATHS[hit.row] for hit in found]
    assert [hit.row for hit in zoom.search(NEW[0], dim=64, top=5)] == [hit.row for hit in hits[0]]


def test_saved_pickled_and_loaded_it_is_the_same(zoom, store, tmp_path):
    zoom.save(tmp_path / "zoom")
    for other in (Zoom.load(tmp_path / "zoom", store=store), pickle.loads(pickle.dumps(zoom))):
        assert np.array_equal(other.encode(NEW), zoom.encode(NEW))
        assert other.predict(NEW) == zoom.predict(NEW)
        assert other.search(NEW[0]) == zoom.search(NEW[0])
    assert {path.suffix for path in (tmp_path / "zoom").iterdir()} == {".json", ".parquet", ".safetensors"}


def test_one_level_is_enough(store):
    flat = Zoom.fit(TEXTS, pd.Series([path[1] for path in PATHS], name="intent"), epochs=4, store=store)
    assert flat.levels == ("intent",)
    assert {len(p.path) for p in flat.predict(NEW)} == {1}
    assert flat.score(NEW, [row[2] for row in TEST]) > 0.6


@pytest.mark.parametrize(
    ("texts", "labels", "words"),
    [
        ("one string", ["a"], "one string"),
        (["a", None], ["x", "y"], "row 1"),
        (["a", " "], ["x", "y"], "row 1"),
        (["a", "b"], ["x"], "1 labels"),
        (["a", "b"], [["x", "i"], ["y", "i"]], "under two parents"),
        (["a", "b"], [None, "y"], "row 0"),
        ([], [], "no labelled texts"),
        (["a", "b"], pl.DataFrame({"text": ["x", "y"]}), "called text"),
    ],
)
def test_what_does_not_fit_is_refused_by_row_or_name(store, texts, labels, words):
    with pytest.raises(DataError, match=words) as caught:
        Zoom.fit(texts, labels, store=store)
    assert caught.value.remedy


def test_labels_under_two_parents_are_told_by_their_places_and_by_what_python_can_do(store):
    with pytest.raises(DataError, match=r"'i' under 'x' \(row 0\), 'y' \(row 2\)") as caught:
        Zoom.fit(["a", "b", "c"], [["x", "i"], ["x", "j"], ["y", "i"]], store=store)
    assert "from coarse to fine" in caught.value.remedy
    assert "--" not in caught.value.remedy


def test_what_is_passed_beside_texts_is_looked_at(store):
    options = {"method": "lda", "store": store}
    assert Zoom.fit(TEXTS, PATHS, device=torch.device("cpu"), **options).levels == ("level0", "level1")
    with pytest.raises(DataError, match="validation is no pair"):
        Zoom.fit(TEXTS, PATHS, validation={"texts": NEW, "labels": PATHS}, **options)
    with pytest.raises(DataError, match="validation holds no texts"):
        Zoom.fit(TEXTS, PATHS, validation=([], []), **options)
    one = Zoom.fit(TEXTS, PATHS, validation=(NEW[:1], PATHS[:1]), **options)
    np.testing.assert_array_equal(one.vectors, Zoom.fit(TEXTS, PATHS, **options).vectors)
    with pytest.raises(HeadsError, match="unknown head preset 'papre'"):
        Zoom.fit(TEXTS, PATHS, head="papre", **options)


def test_no_prefix_is_refused(zoom):
    with pytest.raises(HeadsError, match="65, which is no prefix: there are 64, 128, 192, 256"):
        zoom.encode(NEW, dim=65)


@pytest.mark.parametrize("top", [0, -1, 2.5, True, "ten", None])
def test_no_number_of_texts_is_refused(zoom, top):
    with pytest.raises(DataError, match="top is"):
        zoom.search(NEW, top=top)


@pytest.mark.parametrize("level", [2, -3, "nothing"])
def test_no_level_is_refused(zoom, level):
    with pytest.raises(DataError, match="no level"):
        zoom.score(TEXTS, PATHS, level=level)


def test_nothing_asked_is_nothing_found(zoom):
    assert zoom.search([]) == zoom.predict([]) == []
    assert zoom.encode([], dim=64).shape == (0, 64)


SCRIPT = """
from semantic_zoom import Zoom
zoom = Zoom.fit({texts!r}, {labels!r}, epochs=1, store={store!r})
print(zoom.encode(["new text"], dim=64).shape)
"""


def test_files_of_the_users_are_not_in_the_way(store, tmp_path):
    names = ("cache.py", "pipeline.py", "heads.py", "data/__init__.py")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise SystemExit('the wrong one was imported')\n")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(texts=TEXTS[::4], labels=PATHS[::4], store=str(store)))
    # the package lies behind the script's own folder, as an installed one does
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.stdout == "(1, 64)\n", done.stderr
    assert all(str(tmp_path / name) in done.stderr for name in names)  # what is hidden is named


def test_a_module_of_the_users_that_is_loaded_already_is_named(tmp_path):
    (tmp_path / "cache.py").write_text("")
    code = "import cache\nimport semantic_zoom"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert f"ImportError: {tmp_path / 'cache.py'} has the name of a package" in done.stderr


def test_a_changed_bit_of_the_saved_vectors_is_found(zoom, tmp_path):
    zoom.save(tmp_path / "zoom")
    path = tmp_path / "zoom" / "gallery.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"gallery\.parquet is not what was saved"):
        Zoom.load(tmp_path / "zoom")
    path.unlink()
    with pytest.raises(DataError, match=r"gallery\.parquet is missing"):
        Zoom.load(tmp_path / "zoom")


def test_labels_that_may_not_mean_what_they_say_are_told(store, caplog):
    Zoom.fit(TEXTS, PATHS, method="lda", store=store)
    assert not caplog.text
    labels = [top.upper() if row % 2 else "nan" if row == 0 else top for row, (top, _) in enumerate(PATHS)]
    Zoom.fit(TEXTS, labels, method="lda", store=store)
    assert "of level level0 differ only in case" in caplog.text
    assert "'nan' of level level0 counts as a class: pass None where a label is missing" in caplog.text


def test_a_text_is_no_nearer_to_itself_than_a_cosine_can_be(zoom):
    hits = [hit for found in zoom.search(TEXTS, top=1) for hit in found]
    assert max(hit.similarity for hit in hits) == 1.0


def test_that_training_does_not_pay_is_said(store, caplog):
    """The domains are told by the closed form without an error, so joint has nothing to gain on it."""
    Zoom.fit(TEXTS, [path[0] for path in PATHS], store=store)
    assert "training does not pay here" in caplog.text
