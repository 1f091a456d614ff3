"""Embeddings that were made elsewhere: every row finds its text, and every fault is named."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import data
from pipeline.errors import PipelineError
from pipeline.evaluation.embeddings import external_scorables
from pipeline.evaluation.external_embeddings import read_embeddings
from pipeline.evaluation.protocols import score_embeddings
from pipeline.evaluation.score import score
from tests.pipeline.small_dataset import rows


@pytest.fixture(scope="module")
def dataset(small_csv):
    return data.load(str(small_csv))


@pytest.fixture(scope="module")
def vectors(dataset):
    return np.random.default_rng(0).standard_normal((len(dataset), 96)).astype(np.float32)


def parquet(path, texts, vectors, name="embedding", dtype=None):
    columns = {"text": texts, name: vectors.tolist()}
    pl.DataFrame(columns, schema_overrides={name: dtype or pl.List(pl.Float32)}).write_parquet(path)
    return path


class TestReading:
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_npy_rows_are_in_the_order_of_the_dataset(self, dataset, vectors, tmp_path, dtype):
        np.save(tmp_path / "mine.npy", vectors.astype(dtype))
        found = read_embeddings(tmp_path / "mine.npy", dataset)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, vectors.astype(dtype).astype(np.float32))

    @pytest.mark.parametrize("dtype", [pl.List(pl.Float32), pl.List(pl.Float64), pl.Array(pl.Float32, 96)])
    def test_parquet_rows_find_their_texts_in_any_order_and_among_others(self, dataset, vectors, tmp_path, dtype):
        order = np.random.default_rng(1).permutation(len(dataset) + 1)
        texts = [*dataset.texts, "a text that the dataset does not have"]
        more = np.concatenate([vectors, np.ones((1, 96), np.float32)])
        path = parquet(tmp_path / "mine.parquet", [texts[i] for i in order], more[order], dtype=dtype)
        np.testing.assert_array_equal(read_embeddings(path, dataset), vectors)

    def test_parquet_is_joined_by_the_column_that_has_every_text_whatever_its_name(self, dataset, vectors, tmp_path):
        path = tmp_path / "mine.parquet"
        table = {"group": ["a"] * len(dataset), "message": dataset.texts[::-1], "embedding": vectors[::-1].tolist()}
        pl.DataFrame(table).write_parquet(path)
        np.testing.assert_array_equal(read_embeddings(path, dataset), vectors)

    def test_parquet_without_texts_is_in_order(self, dataset, vectors, tmp_path):
        pl.DataFrame({"v": vectors.tolist()}).write_parquet(tmp_path / "mine.parquet")
        np.testing.assert_array_equal(read_embeddings(tmp_path / "mine.parquet", dataset), vectors)

    def test_parquet_whose_ids_are_in_another_order_is_refused(self, dataset, vectors, tmp_path):
        order = np.random.default_rng(1).permutation(len(dataset))
        shuffled = pl.DataFrame({"id": order, "v": vectors[order].tolist()})
        shuffled.write_parquet(tmp_path / "mine.parquet")
        with pytest.raises(PipelineError, match="column id numbers the rows in another order"):
            read_embeddings(tmp_path / "mine.parquet", dataset)
        shuffled.sort("id").write_parquet(tmp_path / "mine.parquet")
        np.testing.assert_array_equal(read_embeddings(tmp_path / "mine.parquet", dataset), vectors)

    @pytest.mark.parametrize("dtype", [np.int8, np.uint8])
    @pytest.mark.parametrize("suffix", ["npy", "parquet"])
    def test_bytes_are_taken_as_they_are_and_it_is_said(self, dataset, vectors, tmp_path, dtype, suffix):
        quantised = np.clip(np.abs(vectors) * 40, 0, 127).astype(dtype)
        path = tmp_path / f"mine.{suffix}"
        if suffix == "npy":
            np.save(path, quantised)
        else:
            inner = pl.Int8 if dtype == np.int8 else pl.UInt8
            parquet(path, dataset.texts, quantised, dtype=pl.List(inner))
        said = []
        found = read_embeddings(path, dataset, said.append)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, quantised)
        assert len(said) == 1
        assert f"{np.dtype(dtype)}: taken as quantised embeddings" in said[0]

    @pytest.mark.parametrize("dtype", [np.int8, np.uint8])
    def test_packed_signs_are_unpacked_where_that_is_said(self, dataset, vectors, tmp_path, dtype):
        packed = np.packbits(vectors > 0, axis=1)
        np.save(tmp_path / "mine.npy", packed if dtype == np.uint8 else (packed.astype(int) - 128).astype(np.int8))
        said = []
        found = read_embeddings(tmp_path / "mine.npy", dataset, said.append, bits=True)
        np.testing.assert_array_equal(found, np.where(vectors > 0, 1, -1))
        assert not said
        read_embeddings(tmp_path / "mine.npy", dataset, said.append)
        assert "--bits" in said[0]
        np.save(tmp_path / "floats.npy", vectors)
        with pytest.raises(PipelineError, match="not bits packed"):
            read_embeddings(tmp_path / "floats.npy", dataset, bits=True)

    def test_vectors_of_zeros_are_counted_and_the_first_is_named(self, dataset, vectors, tmp_path):
        empty = vectors.copy()
        empty[[7, 9]] = 0
        np.save(tmp_path / "mine.npy", empty)
        said = []
        np.testing.assert_array_equal(read_embeddings(tmp_path / "mine.npy", dataset, said.append), empty)
        assert len(said) == 1
        assert "2 of 108 embeddings are all zeros, the first that of row 8" in said[0]
        assert dataset.texts[7] in said[0]

    @pytest.mark.parametrize("rows", [np.zeros(108, int), np.arange(108) % 6])
    def test_embeddings_that_different_texts_share_are_counted(self, dataset, vectors, tmp_path, rows):
        np.save(tmp_path / "mine.npy", vectors[rows])
        said = []
        read_embeddings(tmp_path / "mine.npy", dataset, said.append)
        assert len(said) == 1
        assert f"108 different texts have {len(set(rows))} different embeddings between them" in said[0]


class TestFaults:
    def refused(self, path, dataset, problem):
        with pytest.raises(PipelineError, match=problem) as caught:
            read_embeddings(path, dataset)
        assert "\n" not in str(caught.value)
        assert caught.value.remedy

    @pytest.mark.parametrize(
        ("changed", "problem"),
        [
            (lambda v: v[1:], r"shape \(107, 96\).*108 rows"),
            (lambda v: v[:, 0], r"shape \(108,\)"),
            (lambda v: np.where(np.arange(108)[:, None] == 17, np.nan, v), "the first that of row 18"),
            (lambda v: np.where(np.arange(108)[:, None] == 17, np.inf, v), "the first that of row 18"),
            (lambda v: np.where(np.arange(108)[:, None] == 17, 1e39, v.astype(float)), "the first that of row 18"),
            (lambda v: v.astype(np.int64), "int64, not floats, int8 or uint8"),
            (lambda v: np.array([{"a": 1}], dtype=object), "no array of numbers"),  # a pickle is never opened
        ],
    )
    def test_an_array_that_is_none_of_the_dataset_s(self, dataset, vectors, tmp_path, changed, problem):
        np.save(tmp_path / "mine.npy", changed(vectors))
        self.refused(tmp_path / "mine.npy", dataset, problem)

    @pytest.mark.parametrize(
        ("columns", "problem"),
        [
            (lambda t, v: {"text": t[:-2], "embedding": v[:-2]}, "no embedding for 2 of 108 texts.*row 107"),
            (lambda t, v: {"text": [*t, t[0]], "embedding": [*v, v[1]]}, "rows 1 and 109 have one text and two"),
            (lambda t, v: {"text": t, "embedding": [*v[:4], v[4][:-1], *v[5:]]}, "row 5 has 95 .* where row 1 has 96"),
            (lambda t, v: {"text": t, "embedding": [*v[:-1], None]}, "row 108 has no embedding"),
            (lambda t, v: {"sentence": [*t[:-1], "x"], "embedding": v}, "by, but sentence, of which none has every"),
            (lambda t, v: {"one": t, "two": t[::-1], "embedding": v}, "by, but one, two, of which each has every text"),
            (lambda t, v: {"text": t}, "0 columns of lists of floats"),
            (lambda t, v: pl.DataFrame(schema={"text": pl.String, "v": pl.List(pl.Float32)}), "has no row"),
        ],
    )
    def test_a_table_that_is_none_of_the_dataset_s(self, dataset, vectors, tmp_path, columns, problem):
        pl.DataFrame(columns([*dataset.texts], vectors.tolist())).write_parquet(tmp_path / "mine.parquet")
        self.refused(tmp_path / "mine.parquet", dataset, problem)

    def test_a_header_with_a_flipped_bit_is_refused_or_says_the_same(self, dataset, vectors, tmp_path):
        np.save(tmp_path / "mine.npy", vectors)
        content = (tmp_path / "mine.npy").read_bytes()
        for bit in range(8 * 128):
            broken = bytearray(content)
            broken[bit // 8] ^= 1 << bit % 8
            (tmp_path / "mine.npy").write_bytes(broken)
            try:
                found = read_embeddings(tmp_path / "mine.npy", dataset)
            except PipelineError as error:
                assert "\n" not in str(error) + error.remedy
            else:
                assert np.array_equal(found, vectors)

    @pytest.mark.parametrize("suffix", ["npy", "parquet"])
    def test_a_file_cut_short(self, dataset, vectors, tmp_path, suffix):
        path = tmp_path / f"mine.{suffix}"
        np.save(path, vectors) if suffix == "npy" else parquet(path, dataset.texts, vectors)
        path.write_bytes(path.read_bytes()[:-300])
        self.refused(path, dataset, "mine")

    def test_another_kind_of_file(self, dataset, tmp_path):
        (tmp_path / "mine.csv").write_text("text,embedding\n")
        self.refused(tmp_path / "mine.csv", dataset, "none of .npy, .parquet and .safetensors")

    def test_an_archive_under_the_name_of_an_array(self, dataset, tmp_path):
        (tmp_path / "mine.npy").write_bytes(b"PK\x03\x04 and no more")
        self.refused(tmp_path / "mine.npy", dataset, "no array of numbers")

    def test_a_prefix_longer_than_the_vectors(self, dataset, vectors, tmp_path):
        np.save(tmp_path / "mine.npy", vectors)
        with pytest.raises(PipelineError, match="96 dimensions, not 128"):
            external_scorables(tmp_path / "mine.npy", dataset, (64, 128))


class TestScoring:
    def test_is_that_of_the_vectors_by_hand(self, dataset, vectors, tmp_path):
        np.save(tmp_path / "mine.npy", vectors)
        given, components = external_scorables(tmp_path / "mine.npy", dataset, None)
        train, test = dataset.split_rows("train"), dataset.split_rows("test")
        expected = score_embeddings(
            vectors[train], dataset.labels[train], vectors[test], dataset.labels[test], scale_dim=(64, 96)
        )
        found = score(given, "gallery")
        assert found.dims == (64, 96)
        accuracies = [[level.accuracy for level in prefix.levels] for prefix in found.prefixes]
        np.testing.assert_allclose(accuracies, expected.accuracy)
        assert (found.identity.run, found.identity.seed, found.identity.method) == (None, None, "mine.npy")
        found = score(components, "leave-one-out").identity
        assert (found.method, found.backbone, found.untrained) == ("pca", "mine.npy", True)


def test_a_file_that_is_named_like_a_baseline_is_not_taken_for_one(pipeline, small_csv, tmp_path):
    np.save(tmp_path / "pca.npy", np.random.default_rng(0).standard_normal((108, 8)))
    call = ("score", "--dataset", small_csv, "--embeddings", tmp_path / "pca.npy")
    found = pipeline.json(*call)
    given, components = found["scores"][0], found["baselines"][0]
    assert "untrained" not in given
    assert components["untrained"]
    shown = pipeline(*call, "--errors").stdout
    assert "pca.npy " in shown
    assert "pca.npy*" not in shown
    assert "pca*" in shown
    assert shown.count("pca.npy, 8 dims:") == 1  # one prefix is listed once
    assert "pca.npy: S = " not in shown  # and has no steerability


def test_the_command_scores_a_file_with_no_backbone_and_no_run(pipeline, small_csv, tmp_path):
    """Columns of the labels themselves make vectors that are right about everything."""
    table = rows()
    intents = sorted({row[2] for row in table})
    np.save(tmp_path / "mine.npy", np.array([[row[2] == intent for intent in intents] for row in table], np.float32))
    found = pipeline.json("score", "--dataset", small_csv, "--embeddings", tmp_path / "mine.npy", "--dims", "3,6")
    (mine,) = found["scores"]
    assert [prefix["dim"] for prefix in mine["prefixes"]] == [3, 6]
    assert [level["accuracy"] for level in mine["prefixes"][1]["levels"]] == [1.0, 1.0]
    assert mine["prefixes"][0]["levels"][1]["accuracy"] < 1
    shown = pipeline("score", "--dataset", small_csv, "--embeddings", tmp_path / "mine.npy", "--errors")
    assert shown.returncode == 0, shown.stderr
    assert "mine" in shown.stdout
    assert pipeline("score", "--embeddings", tmp_path / "mine.npy", "--method", "v5").returncode == 2
    assert "107" in pipeline.fails("score", "--dataset", small_csv, "--embeddings", _short(tmp_path))


def _short(tmp_path):
    np.save(tmp_path / "short.npy", np.ones((107, 4), np.float32))
    return tmp_path / "short.npy"
