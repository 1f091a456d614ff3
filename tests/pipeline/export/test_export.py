"""Models as others use them: loaded by the real sentence-transformers and onnxruntime.

Models are loaded by processes that cannot import this project. In a fresh environment, that is by another interpreter:

    python3 -m venv plain && plain/bin/pip install sentence-transformers torch==2.13.0
    python3 -m venv onnx && onnx/bin/pip install onnxruntime tokenizers
    PLAIN_PYTHON=plain/bin/python ONNX_PYTHON=onnx/bin/python python -m pytest tests/pipeline/export/test_export.py
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cache
from heads import HeadsError
from pipeline.errors import PipelineError
from pipeline.export.sentence_transformers_folder import check_folder
from pipeline.workspace.artifacts import Artifacts
from pipeline.workspace.runs import runs_by_id
from tests.pipeline.conftest import Pipeline
from tests.pipeline.small_dataset import rows, write_csv

ROOT = Path(__file__).resolve().parents[3]
DIMS = (64, 128, 192, 256)
END = 151643
LONG = "how do i move money to my savings account " * 60  # cut at 256 tokens
TEXTS = [row[0] for row in rows()[::5]] + [LONG, "x", "Größe 🙂 ümlaut שלום"]
FITTED = {
    "lda": ("--method", "lda"),
    "linear": ("--method", "v5", "--epochs", "1", "--head", "linear"),
    "mlp": ("--method", "v5", "--epochs", "1", "--head", "mlp"),
    "paper": ("--method", "v5", "--epochs", "1", "--head", "paper"),
}
STOCK = ("lda", "linear")
HEADS = [*(pytest.param(head, marks=pytest.mark.slow) for head in ("lda", "mlp")), "linear", "paper"]
TRACED = [*(pytest.param(head, marks=pytest.mark.slow) for head in ("lda", "mlp", "linear")), "paper"]
ALONE = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("cache", "data", "heads", "pipeline", "semantic_zoom"):
            raise ImportError(name + " is not installed here")
sys.meta_path.insert(0, Nothing())
"""


def plain(folder, **settings):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", local_files_only=True, **settings)


def own(made: Pipeline, run_id: str, texts=TEXTS, dtype="float32", store_dtype="float32") -> dict[int, np.ndarray]:
    """Our own prefix embeddings of texts: the run's backbone, its store, its head."""
    artifacts = Artifacts(made.artifacts)
    (run,) = runs_by_id(artifacts, [run_id])
    backbone = cache.resolve(run.record["backbone_source"])
    request = cache.EmbedRequest(backbone, artifacts.features, dtype=dtype, store_dtype=store_dtype)
    report = cache.embed_missing(texts, request)
    features = cache.FeatureStore.open(report.stores[0].folder).gather(cache.text_keys(texts, run.record["prompt"]))
    return {dim: run.load().embed(features.astype(np.float32), dim=dim) for dim in DIMS}


class Exported(dict):
    """What `make` gives for a key, made when it is first asked for."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def __missing__(self, key):
        self[key] = self.make(key)
        return self[key]


@pytest.fixture(scope="module")
def in_float32(tmp_path_factory, small_csv):
    """Heads on features computed and stored in float32, exported: by head, the folder and what the command said."""
    root = tmp_path_factory.mktemp("float32")
    made = Pipeline(root / "artifacts", root)
    made.json("embed", small_csv, "--backbone", "minilm", "--dtype", "float32")
    request = cache.EmbedRequest("minilm", Artifacts(made.artifacts).features, dtype="float32", store_dtype="float32")
    report = cache.embed_missing([row[0] for row in rows()], request)
    store = ("--backbone", report.stores[0].folder.name)
    runs = Exported(lambda head: made.json("fit-head", *FITTED[head], *store)["runs"][0]["id"])

    def export(key):
        head, _, kind = key.partition(" ")
        folder = root / f"a {head} model"
        output = f"{folder} onnx" if kind else folder
        call = ("export", "--run", runs[head], *store, "--format", kind or "sentence-transformers", "--output", output)
        return folder, made.json(*call)

    return Exported(export), made


@pytest.fixture(scope="module")
def in_bfloat16(tmp_path_factory):
    """A head on bfloat16 features of a folder with a prompt, called like a known backbone; names with spaces."""
    root = tmp_path_factory.mktemp("bfloat16")
    made, checkpoint = Pipeline(root / "artifacts", root), root / "bge-small"
    shutil.copytree(cache.resolve("minilm").source, checkpoint)
    settings = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    (checkpoint / "config_sentence_transformers.json").write_text(json.dumps(settings))
    shutil.copy(checkpoint / "model.safetensors", checkpoint / "left over.safetensors")
    table = write_csv(root / "short rows.csv", rows()[::2], "the text,the kind,key,split")
    loading = ("--text", "the text", "--levels", "the kind,key")
    made.json("embed", table, "--backbone", checkpoint, "--dtype", "bfloat16", *loading)
    made.json("fit-head", "--method", "joint", "--epochs", "1", "--head", "linear")
    folder = root / "model"
    return folder, made.json("export", "--format", "sentence-transformers", "--output", folder), made


def run_alone(code: str, cwd: Path, *arguments: object, python: str = "PLAIN_PYTHON") -> str:
    """Run code in a process that has this project nowhere; return what it prints.

    :param python: variable of the environment that names another interpreter.
    """
    command = [os.environ.get(python, sys.executable), "-P", "-c", ALONE + code, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


LOADED = """
import json, os
import numpy as np
from sentence_transformers import SentenceTransformer
texts, home = json.load(open("texts.json")), os.getcwd()
for head, folder, options, card in json.load(open("models.json")):
    found, whole = {}, SentenceTransformer(folder, device="cpu", **options)
    assert {weights.dtype.__str__() for weights in whole.parameters()} == {"torch.float32"}
    for dim in (64, 128, 192, 256):
        cut = SentenceTransformer(folder, device="cpu", truncate_dim=dim, **options) if dim == 64 else None
        found[str(dim)] = whole.encode(texts, batch_size=3, truncate_dim=dim, normalize_embeddings=True)
        if cut is not None:
            found["at load"] = cut.encode(texts, normalize_embeddings=True)
    os.chdir(os.path.dirname(folder))
    names = {}
    exec(card, names)
    np.savez(f"{home}/{head}.npz", card=names["embeddings"], **found)
"""


@pytest.mark.parametrize("heads", [pytest.param(("lda", "mlp"), marks=pytest.mark.slow), ("linear", "paper")])
def test_where_this_project_is_not_installed_every_prefix_is_our_own_and_the_card_works(in_float32, tmp_path, heads):
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    models, made = [], in_float32[1]
    for head in heads:
        folder, said = in_float32[0][head]
        assert said["difference"] < 1e-5
        card = (folder / "README.md").read_text()
        assert "base_model: sentence-transformers/all-MiniLM-L6-v2\n" in card
        assert "license: apache-2.0\n" in card
        blocks = [block.split("```")[0] for block in card.split("```python\n")[1:]]
        assert len(blocks) == card.count("```") / 2 == 1
        options = {} if head in STOCK else {"trust_remote_code": True}  # stock modules need no trust
        models.append((head, str(folder), options, blocks[0]))
    (tmp_path / "models.json").write_text(json.dumps(models))
    run_alone(LOADED, tmp_path)
    for head in heads:
        expected = own(made, in_float32[0][head][1]["run"])
        with np.load(tmp_path / f"{head}.npz") as found:
            for dim in DIMS:
                assert np.abs(found[str(dim)] - expected[dim]).max() < 1e-5
            assert np.abs(found["at load"] - expected[64]).max() < 1e-5
            assert found["card"].shape == (2, 64)
            assert np.allclose((found["card"] ** 2).sum(1), 1, atol=1e-5)


def test_without_trust_a_file_of_the_folder_is_not_run(in_float32):
    with pytest.raises(ValueError, match="trust_remote_code"):
        plain(in_float32[0]["paper"][0])
    linear = in_float32[0]["linear"][0]
    assert {path.suffix for path in linear.rglob("*") if path.is_file()} <= {".json", ".safetensors", ".txt", ".md"}


def test_a_prefix_that_is_not_normalised_has_another_length(in_float32):
    """Why card and command ask for `normalize_embeddings=True`."""
    model = plain(in_float32[0]["linear"][0])
    lengths = np.linalg.norm(model.encode(TEXTS[:9], truncate_dim=64), axis=1)
    assert lengths.max() < 0.9
    assert "normalize_embeddings=True" in (in_float32[0]["linear"][0] / "README.md").read_text()


def test_the_card_carries_the_scores_and_the_record_the_settings(in_float32):
    (folder, said), made = in_float32[0]["paper"], in_float32[1]
    card, record = (folder / "README.md").read_text(), json.loads((folder / "training.json").read_text())
    store = f"minilm-{record['fingerprint'][:12]}"
    (score,) = [
        s for s in made.json("score", "--method", "v5", "--backbone", store)["scores"] if s["run"] == said["run"]
    ]
    for prefix in score["prefixes"]:
        row = next(line for line in card.splitlines() if line.startswith(f"| {prefix['dim']} |"))
        assert f"{prefix['levels'][0]['accuracy'] * 100:.1f} [" in row
    assert record["hyperparameters"]["epochs"] == 1
    for path in folder.rglob("*"):
        if path.suffix in (".json", ".md"):
            assert str(ROOT) not in path.read_text()
            assert TEXTS[0] not in path.read_text()


@pytest.mark.parametrize("head", HEADS)
def test_saved_again_by_sentence_transformers_it_stays_the_same(in_float32, tmp_path, head):
    model = plain(in_float32[0][head][0], trust_remote_code=True)
    model.save(str(tmp_path / "again"))
    again = plain(tmp_path / "again", trust_remote_code=True)
    assert np.array_equal(again.encode(TEXTS[:5]), model.encode(TEXTS[:5]))


ONNX = """
import json
import numpy as np
code = open("onnx/README.md").read().split("```python\\n")[1].split("```")[0]
code = code.replace('["first text", "second text"]', "texts")
texts = json.load(open("texts.json"))
exec(code)
names = ["embedding_64", "embedding_128", "embedding_192", "embedding_256"]
found = dict(zip(names, session.run(names, tokens)))
assert not {"torch", "transformers", "sentence_transformers"} & set(sys.modules)
assert np.array_equal(embeddings, found["embedding_64"])
np.savez("found.npz", **found)
"""


@pytest.mark.parametrize("head", TRACED)
def test_the_onnx_graph_and_its_card_give_our_own_prefixes(in_float32, tmp_path, head):
    (_, said), made = in_float32[0][f"{head} onnx"], in_float32[1]
    assert max(said["difference"], said["difference_from_traced"]) < 1e-4
    shutil.copytree(said["path"], tmp_path / "onnx")
    card = (tmp_path / "onnx" / "README.md").read_text()
    (tmp_path / "onnx" / "README.md").write_text(card.replace(Path(said["path"]).name, "onnx"))
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    run_alone(ONNX, tmp_path, python="ONNX_PYTHON")
    expected = own(made, said["run"])
    with np.load(tmp_path / "found.npz") as found:
        for dim in DIMS:
            assert np.abs(found[f"embedding_{dim}"] - expected[dim]).max() < 1e-5


def test_the_onnx_tokenizer_itself_cuts_where_the_model_does(in_float32):
    """MiniLM's own file cuts at 128 tokens, the model at 256."""
    from tokenizers import Tokenizer

    (_, said), _ = in_float32[0]["paper onnx"], in_float32[1]
    tokenizer = Tokenizer.from_file(f"{said['path']}/tokenizer.json")
    long, short = tokenizer.encode_batch(["word " * 400, "word"])
    assert len(long.ids) == len(short.ids) == 256
    assert len(tokenizer.encode("word").ids) == 3


TOKENIZER_SETTINGS = {
    "cased": {"tokenizer_config.json": {"do_lower_case": False}},
    "lower case by the model": {
        "tokenizer_config.json": {"do_lower_case": False, "strip_accents": False},
        "sentence_bert_config.json": {"do_lower_case": True},
    },
    "cut on the left": {"tokenizer_config.json": {"truncation_side": "left"}},
}


@pytest.mark.parametrize("name", TOKENIZER_SETTINGS)
def test_what_the_files_beside_the_tokenizer_say_goes_along(pipeline, tmp_path, small_csv, name):
    """Texts of the dataset are in lower case and short: the check of the export alone would see none of it."""
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(cache.resolve("minilm").source, checkpoint)
    for file, change in TOKENIZER_SETTINGS[name].items():
        found = json.loads((checkpoint / file).read_text())
        (checkpoint / file).write_text(json.dumps({**found, **change}))
    pipeline.json("embed", small_csv, "--backbone", checkpoint, "--dtype", "float32", "--store-dtype", "float32")
    (run,) = pipeline.json("fit-head", "--method", "lda")["runs"]
    folders = {kind: tmp_path / kind for kind in ("sentence-transformers", "onnx")}
    for kind, folder in folders.items():
        pipeline.json("export", "--format", kind, "--output", folder)
    texts = ["How Much MONEY is in my Savings", "Größe ÜBER Straße", f"first of all {LONG} and at last a hotel in Oslo"]
    expected = own(pipeline, run["id"], texts, store_dtype="float32")
    given = plain(folders["sentence-transformers"]).encode(texts, truncate_dim=64, normalize_embeddings=True)
    assert np.abs(given - expected[64]).max() < 1e-5
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    run_alone(ONNX, tmp_path, python="ONNX_PYTHON")
    with np.load(tmp_path / "found.npz") as found:
        assert np.abs(found["embedding_64"] - expected[64]).max() < 1e-5


def test_the_onnx_head_alone_maps_features(in_float32):
    import onnxruntime

    (_, said), made = in_float32[0]["paper onnx"], in_float32[1]
    (run,) = runs_by_id(Artifacts(made.artifacts), [said["run"]])
    features = np.random.default_rng(0).standard_normal((5, 384), dtype=np.float32)
    (found,) = onnxruntime.InferenceSession(f"{said['path']}/head.onnx").run(["embedding_128"], {"features": features})
    assert np.abs(found - run.load().embed(features, dim=128)).max() < 1e-5


def test_a_folder_of_an_earlier_version_says_that_it_must_be_made_again(in_float32, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(in_float32[0]["linear"][0], folder, copy_function=os.link)
    modules = json.loads((folder / "modules.json").read_text())
    for kind, at in (("heads.exported.ExportedHead", 2), ("pipeline.export.packed.PackedTransformer", 0)):
        (folder / "modules.json").unlink()
        (folder / "modules.json").write_text(json.dumps([*modules[:at], {**modules[at], "type": kind}]))
        with pytest.raises(HeadsError, match="exported by an earlier version: export the run again"):
            plain(folder, trust_remote_code=True)


def test_a_checkpoint_of_qwen3s_kind_keeps_its_end_token(pipeline, tmp_path, qwen_tokenizer):
    checkpoint = tmp_path / "Qwen3 Tiny"
    runpy.run_path(ROOT / "scripts" / "make_qwen3_checkpoint.py")["write_checkpoint"](checkpoint, qwen_tokenizer)
    short = write_csv(tmp_path / "short.csv", rows()[::2])
    pipeline.json("embed", short, "--backbone", checkpoint, "--dtype", "float32")
    pipeline.json("fit-head", "--method", "joint", "--epochs", "1")
    folder = tmp_path / "model"
    said = pipeline.json("export", "--method", "joint", "--format", "sentence-transformers", "--output", folder)
    assert said["difference"] < 2e-3
    model = plain(folder, truncate_dim=64, trust_remote_code=True)
    texts = [*TEXTS[:6], "a"]
    tokens = model.tokenizer(texts)["input_ids"]
    assert all(ids[-1] == END and ids[-2] != END for ids in tokens)
    model.max_seq_length = 4
    assert [ids[-1] for ids in model.tokenize([LONG])["input_ids"].tolist()] == [END]
    model = plain(folder, truncate_dim=64, trust_remote_code=True)
    expected = own(pipeline, said["run"], texts, store_dtype="float16")[64]
    assert np.abs(model.encode(texts, normalize_embeddings=True) - expected).max() < 2e-3
    without = np.abs(plain_without_end(folder, texts) - expected).max()
    assert without > 1e-2  # the test could tell


def plain_without_end(folder, texts):
    model = plain(folder, truncate_dim=64, trust_remote_code=True)
    model.tokenizer.backend_tokenizer.post_processor = None
    return model.encode(texts, normalize_embeddings=True)


def test_a_prompt_goes_along(in_bfloat16):
    folder, _, _ = in_bfloat16
    model = plain(folder, truncate_dim=64, trust_remote_code=True)
    expected = model.encode(TEXTS[:4])
    assert np.array_equal(model.encode_query(TEXTS[:4]), expected)
    assert np.array_equal(model.encode_document(TEXTS[:4]), expected)
    assert np.abs(model.encode(TEXTS[:4], prompt="") - expected).max() > 1e-2
    assert ', "query: " before each text' in (folder / "README.md").read_text()


def test_a_folder_checkpoint_is_what_it_holds_and_not_what_it_is_called(in_bfloat16):
    folder, _, _ = in_bfloat16
    card = (folder / "README.md").read_text()
    assert "a local checkpoint" in card
    assert "BAAI" not in card
    assert "license" not in card
    assert [path.name for path in folder.glob("*.safetensors")] == ["model.safetensors"]


@pytest.mark.parametrize("made_in", ["in_float32", "in_bfloat16"])
def test_a_folder_that_lost_its_special_tokens_is_refused_and_the_whole_one_is_not(request, made_in, tmp_path):
    from sentence_transformers import SentenceTransformer

    found = request.getfixturevalue(made_in)
    folder, said, made = found if made_in == "in_bfloat16" else (*found[0]["linear"], found[1])
    (run,) = runs_by_id(Artifacts(made.artifacts), [said["run"]])
    texts = [row[0] for row in rows() if row[3] == "test"][:16]
    model = plain(folder)
    pooled = SentenceTransformer(
        modules=[model[0], model[1]], prompts=model.prompts, default_prompt_name=model.default_prompt_name, device="cpu"
    ).encode(texts)
    assert check_folder(folder, run, texts, pooled) < 1e-6
    rounded = pooled * (1 + 0.01 * np.random.default_rng(1).standard_normal(pooled.shape, dtype=np.float32))
    if made_in == "in_bfloat16":
        assert check_folder(folder, run, texts, rounded) > 2e-3
    else:
        with pytest.raises(PipelineError, match="other embeddings than the run"):
            check_folder(folder, run, texts, rounded)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, copy_function=os.link)
    for name, field, value in (
        ("tokenizer.json", "post_processor", None),
        ("tokenizer_config.json", "tokenizer_class", "PreTrainedTokenizerFast"),
    ):
        content = json.loads((copy / name).read_text())
        (copy / name).unlink()
        (copy / name).write_text(json.dumps({**content, field: value}))
    with pytest.raises(PipelineError, match="other embeddings than the run"):
        check_folder(copy, run, texts, pooled)


def test_levels_called_like_a_column_of_the_export_are_refused(in_bfloat16, tmp_path):
    said = in_bfloat16[2].fails("export", "--format", "parquet", "--output", tmp_path / "out.parquet")
    assert "level key of" in said
    assert "rename that column" in said
