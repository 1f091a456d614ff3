"""A tiny GGUF file, written here, as a backbone: what transformers computes of the same file, text by text."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cache import EmbedRequest, FeatureStore, embed_missing, text_keys
from cache.backbone.fingerprint import identity, read_content
from cache.backbone.hub import locate
from cache.backbone.registry import resolve
from cache.batching.tokenizer import TextTokenizer
from cache.errors import CacheError
from tests.cache.store.killing import together

gguf = pytest.importorskip("gguf", reason="the extra [gguf] is not installed")
pytest.importorskip("accelerate", reason="the extra [gguf] is not installed")

HIDDEN, WIDTH, LAYERS, HEADS, KV_HEADS = 32, 64, 2, 4, 2
TEXTS = ["ab cd", "ab ce", "ab", "12 pipes", "ab cd and more"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


def write(path, without="", **metadata):
    """A llama of two layers with a byte-level vocabulary, but for one tensor; `metadata` of kinds bool and int."""
    from tokenizers import pre_tokenizers

    tokens = ["<|endoftext|>", "<|im_start|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", "cd"]
    writer = gguf.GGUFWriter(str(path), "llama")
    for name, value in {
        "context_length": 128,
        "embedding_length": HIDDEN,
        "block_count": LAYERS,
        "feed_forward_length": WIDTH,
        "head_count": HEADS,
        "head_count_kv": KV_HEADS,
        "rope_dimension_count": HIDDEN // HEADS,
        "vocab_size": len(tokens),
    }.items():
        getattr(writer, f"add_{name}")(value)
    writer.add_rope_freq_base(1e4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, *[1] * (len(tokens) - 2)])
    writer.add_token_merges(["a b", "c d"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    for name, value in metadata.items():
        getattr(writer, f"add_{name}")(value)
    generator = np.random.default_rng(0)
    layer = {
        "attn_q": (HIDDEN, HIDDEN),
        "attn_k": (HIDDEN * KV_HEADS // HEADS, HIDDEN),
        "attn_v": (HIDDEN * KV_HEADS // HEADS, HIDDEN),
        "attn_output": (HIDDEN, HIDDEN),
        "ffn_gate": (WIDTH, HIDDEN),
        "ffn_up": (WIDTH, HIDDEN),
        "ffn_down": (HIDDEN, WIDTH),
        "attn_norm": (HIDDEN,),
        "ffn_norm": (HIDDEN,),
    }
    shapes = {f"blk.{i}.{name}.weight": shape for i in range(LAYERS) for name, shape in layer.items()}
    shapes |= {"token_embd.weight": (len(tokens), HIDDEN), "output_norm.weight": (HIDDEN,)}
    shapes.pop(without, None)
    for name, shape in shapes.items():
        weight = generator.normal(1.0 if "norm" in name else 0.0, 0.3, shape).astype(np.float32)
        matrix = len(shape) == 2 and name != "token_embd.weight"
        kind = gguf.GGMLQuantizationType.Q8_0 if matrix else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(weight, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def features(spec, root) -> np.ndarray:
    request = EmbedRequest(spec, root, dtype="float32", store_dtype="float32", devices="cpu")
    report = embed_missing(TEXTS, request)
    assert report.nodes < report.tokens  # shared prefixes are computed once
    return FeatureStore.open(report.stores[0].folder).gather(text_keys(TEXTS))


def tokens_of(spec):
    backbone = resolve(spec)
    sequences = TextTokenizer(locate(backbone.source, ""), backbone).encode(TEXTS)
    return [sequences.ids[a:b] for a, b in zip(sequences.offsets, sequences.offsets[1:], strict=False)]


def test_features_are_those_of_transformers_reading_the_same_file(tmp_path):
    from transformers import AutoModel

    path = write(tmp_path / "tiny.gguf")
    model = AutoModel.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32).eval()
    found = {pooling: features(f"{path}?pooling={pooling}", tmp_path / "store") for pooling in ("last", "mean", "cls")}
    for i, ids in enumerate(tokens_of(path)):
        with torch.inference_mode():
            states = model(torch.from_numpy(ids.astype(np.int64))[None]).last_hidden_state[0]
        alone = {"last": states[-1], "mean": states.mean(0), "cls": states[0]}
        for pooling, expected in alone.items():
            other = found[pooling][i] - expected.numpy()
            assert np.linalg.norm(other) <= 1e-5 * np.linalg.norm(expected)


def test_weights_that_transformers_does_not_find_are_an_error_and_not_drawn_at_random(tmp_path):
    path = write(tmp_path / "part.gguf", without="blk.1.ffn_up.weight")
    with pytest.raises(CacheError, match=r"finds no layers\.1\.mlp\.up_proj\.weight .*\(1 missing\)") as caught:
        features(path, tmp_path / "store")
    assert "download the file again" in caught.value.remedy


def test_tokens_ends_and_pooling_are_those_of_the_metadata(tmp_path):
    plain = tokens_of(write(tmp_path / "plain.gguf"))
    assert resolve(tmp_path / "plain.gguf").pooling == "last"
    path = write(tmp_path / "ends.gguf", add_bos_token=True, add_eos_token=True, pooling_type=gguf.PoolingType.MEAN)
    assert resolve(path).pooling == "mean"
    assert [ids.tolist() for ids in tokens_of(path)] == [[1, *ids, 0] for ids in plain]
    none = write(tmp_path / "none.gguf", add_bos_token=False)
    assert [ids.tolist() for ids in tokens_of(none)] == [ids.tolist() for ids in plain]


def test_the_fingerprint_is_that_of_the_bytes_and_the_file_is_dequantised_once(tmp_path):
    path = write(tmp_path / "tiny.gguf")
    (tmp_path / "folder").mkdir()
    moved = (tmp_path / "folder" / "other.gguf").resolve()
    moved.write_bytes(path.read_bytes())

    def origin(spec):
        backbone = resolve(spec)
        return identity(read_content(locate(backbone.source, ""), backbone, tmp_path / "root"), backbone, 2)

    assert origin(path) == origin(moved) == origin(moved.parent)
    made = [entry for entry in (tmp_path / "home" / "semantic-zoom" / "gguf").iterdir() if entry.is_dir()]
    assert len(made) == 1
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert origin(path) != origin(moved)
    (moved.parent / "second.gguf").write_bytes(b"x")
    with pytest.raises(CacheError, match="holds 2 GGUF files"):
        resolve(moved.parent)


def test_processes_that_dequantise_one_file_at_once_all_have_it(tmp_path):
    path = write(tmp_path / "a.gguf")
    together((resolve, path), (resolve, path))


@pytest.mark.parametrize("length", [0, 3, 30, 3000])
def test_a_cut_file_is_refused(tmp_path, length):
    path = write(tmp_path / "tiny.gguf")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CacheError, match=r"tiny\.gguf") as caught:
        resolve(path)
    assert "\n" not in str(caught.value) + caught.value.remedy


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "accelerate" else real(name, *a))
    with pytest.raises(CacheError, match="needs accelerate") as caught:
        resolve(write(tmp_path / "tiny.gguf"))
    assert caught.value.remedy == "pip install accelerate"


def test_what_another_transformers_made_is_not_taken(tmp_path, monkeypatch):
    """A release may read weights or a tokenizer otherwise, and the file's digest would not say so."""
    write(tmp_path / "tiny.gguf")
    first = locate(str(tmp_path / "tiny.gguf"), "")
    assert locate(str(tmp_path / "tiny.gguf"), "") == first
    monkeypatch.setattr("cache.backbone.gguf.version", lambda name: "99.0")
    again = locate(str(tmp_path / "tiny.gguf"), "")
    assert again != first and (again / "config.json").is_file()
