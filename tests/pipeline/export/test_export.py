"""Exports as others use them: loaded by the real sentence-transformers, onnxruntime, polars, FAISS and scikit-learn.

Models are loaded by processes that cannot import this project. In a fresh environment, that is by another interpreter:

    python3 -m venv plain && plain/bin/pip install sentence-transformers torch==2.13.0
    python3 -m venv onnx && onnx/bin/pip install onnxruntime tokenizers
    PLAIN_PYTHON=plain/bin/python ONNX_PYTHON=onnx/bin/python python -m pytest tests/pipeline/export/test_export.py
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from markdown_it import MarkdownIt

import cache
from heads import HeadsError
from pipeline.errors import PipelineError
from pipeline.export.sentence_transformers_folder import check_folder
from pipeline.terminal.escape import one_line
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
import json
import numpy as np
from sentence_transformers import SentenceTransformer
folder, options, texts = sys.argv[1], json.loads(sys.argv[2]), json.load(open("texts.json"))
found, whole = {}, SentenceTransformer(folder, device="cpu", **options)
assert {weights.dtype.__str__() for weights in whole.parameters()} == {"torch.float32"}
for dim in (64, 128, 192, 256):
    cut = SentenceTransformer(folder, device="cpu", truncate_dim=dim, **options) if dim == 64 else None
    found[str(dim)] = whole.encode(texts, batch_size=3, truncate_dim=dim, normalize_embeddings=True)
    if cut is not None:
        found["at load"] = cut.encode(texts, normalize_embeddings=True)
np.savez("found.npz", **found)
"""


@pytest.mark.parametrize("head", HEADS)
def test_every_prefix_is_our_own_where_this_project_is_not_installed(in_float32, tmp_path, head):
    (folder, said), made = in_float32[0][head], in_float32[1]
    assert said["difference"] < 1e-5
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    options = {} if head in STOCK else {"trust_remote_code": True}  # stock modules need no trust
    run_alone(LOADED, tmp_path, folder, json.dumps(options))
    expected = own(made, said["run"])
    with np.load(tmp_path / "found.npz") as found:
        for dim in DIMS:
            assert np.abs(found[str(dim)] - expected[dim]).max() < 1e-5
        assert np.abs(found["at load"] - expected[64]).max() < 1e-5


def test_without_trust_a_file_of_the_folder_is_not_run(in_float32):
    with pytest.raises(ValueError, match="trust_remote_code"):
        plain(in_float32[0]["paper"][0])
    linear = in_float32[0]["linear"][0]
    assert {path.suffix for path in linear.rglob("*") if path.is_file()} <= {".json", ".safetensors", ".txt", ".md"}


def test_a_prefix_that_is_not_normalised_has_another_length(in_float32):
    """Why card and command ask for `normalize_embeddings=True`."""
    model = plain(in_float32[0]["linear"][0])
    lengths = np.linalg.norm(model.encode(TEXTS, truncate_dim=64), axis=1)
    assert lengths.max() < 0.9
    assert "normalize_embeddings=True" in (in_float32[0]["linear"][0] / "README.md").read_text()


@pytest.mark.parametrize("head", [pytest.param("lda", marks=pytest.mark.slow), "paper"])
def test_every_line_of_the_card_works(in_float32, head):
    folder = in_float32[0][head][0]
    card = (folder / "README.md").read_text()
    assert "base_model: sentence-transformers/all-MiniLM-L6-v2\n" in card
    assert "license: apache-2.0\n" in card
    blocks = [block.split("```")[0] for block in card.split("```python\n")[1:]]
    assert len(blocks) == card.count("```") / 2 == 1
    found = run_alone(blocks[0] + "print(embeddings.shape, float((embeddings**2).sum(1).min()))", folder.parent)
    shape, length = found.rsplit(" ", 1)
    assert shape == "(2, 64)"
    assert float(length) == pytest.approx(1, abs=1e-5)


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
texts, found = json.load(open("texts.json")), {}
exec(code)
for name in ("embedding_64", "embedding_128", "embedding_192", "embedding_256"):
    (found[name],) = session.run([name], tokens)
assert not {"torch", "transformers", "sentence_transformers"} & set(sys.modules)
assert np.array_equal(embeddings, found["embedding_64"])
np.savez("found.npz", **found)
"""


@pytest.mark.parametrize("head", HEADS)
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


def test_parquet_has_every_row_and_scores_like_ours_in_scikit_learn(fitted, tmp_path):
    """As MTEB classifies: train on exported vectors, in a process that knows no pipeline."""
    files = {}
    for dim in (64, 256):
        files[dim] = tmp_path / f"v5-{dim}.parquet"
        said = fitted.json(
            "export", "--method", "v5", "--seed", "1", "--format", "parquet", "--dim", dim, "--output", files[dim]
        )
        assert (said["format"], said["rows"], said["dim"]) == ("parquet", len(rows()), dim)
    frame = pl.read_parquet(files[64])
    assert frame.columns == ["row", "text", "level0", "level1", "split", "key", "embedding"]
    assert frame.select("text", "level0", "level1", "split").rows() == rows()
    assert frame["key"].to_list() == [bytes(key).hex() for key in cache.text_keys([row[0] for row in rows()])]
    assert frame.schema["embedding"] == pl.Array(pl.Float32, 64)
    code = """
import json, sys
import numpy as np, polars as pl
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors

def voted(labels, similarities):
    # most votes, then the larger summed similarity, then the lower label
    names = np.unique(labels)
    rank = [((labels == n).sum(), similarities[labels == n].sum(), -i) for i, n in enumerate(names)]
    return names[max(range(len(names)), key=rank.__getitem__)]

found = {}
for path in sys.argv[1:]:
    frame = pl.read_parquet(path)
    part = {s: frame.filter(pl.col("split") == s) for s in ("train", "test")}
    x, y = (part[s]["embedding"].to_numpy() for s in ("train", "test"))
    for level in ("level0", "level1"):
        a, b = (part[s][level].to_numpy() for s in ("train", "test"))
        distances, near = NearestNeighbors(n_neighbors=5, algorithm="brute", metric="cosine").fit(x).kneighbors(y)
        answers = np.array([voted(a[row], 1 - d) for row, d in zip(near, distances)])
        logistic = LogisticRegression(max_iter=1000).fit(x, a)
        found[f"{x.shape[1]} {level}"] = [float((answers == b).mean()), logistic.score(y, b)]
assert "pipeline" not in sys.modules and "torch" not in sys.modules
print(json.dumps(found))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, files.values())],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    (score,) = [s for s in fitted.json("score", "--method", "v5")["scores"] if s["seed"] == 1]
    for prefix in score["prefixes"]:
        if prefix["dim"] in files:
            for level in prefix["levels"]:
                knn, logistic = found[f"{prefix['dim']} level{level['level']}"]
                assert knn == pytest.approx(level["accuracy"])
                assert logistic > 0.5


def test_parquet_with_a_column_per_prefix_and_in_fewer_bytes(fitted, tmp_path):
    path = tmp_path / "vectors.parquet"
    said = fitted.json(
        "export", "--method", "v5", "--seed", "1", "--format", "parquet", "--dims", "64,256",
        "--quantize", "int8,binary",
        "--output", path,
    )  # fmt: skip
    frame = pl.read_parquet(path)
    assert said["columns"] == frame.columns
    assert frame.columns[:5] == ["id", "text", "level0", "level1", "split"]
    assert frame["id"].to_list() == list(range(len(rows())))
    full = frame["embedding_256"].to_numpy()
    for dim in (64, 256):
        units = frame[f"embedding_{dim}"].to_numpy()
        cut = full[:, :dim] / np.linalg.norm(full[:, :dim], axis=1, keepdims=True)
        np.testing.assert_allclose(units, cut, atol=1e-6)
        codes, scale = frame[f"embedding_{dim}_int8"].to_numpy(), frame[f"embedding_{dim}_int8_scale"].to_numpy()
        restored = codes.astype(np.float32) * scale[:, None]
        np.testing.assert_allclose(np.linalg.norm(restored, axis=1), 1, atol=1e-5)
        assert (restored * units).sum(1).min() > 0.999
        bits = np.unpackbits(frame[f"embedding_{dim}_binary"].to_numpy(), axis=1)
        assert np.array_equal(bits == 1, units > 0)


def test_faiss_finds_what_we_find(fitted, tmp_path):
    import faiss

    path = tmp_path / "v5.faiss"
    export = ("export", "--method", "v5", "--seed", "1", "--dim", "64")
    said = fitted.json(*export, "--format", "faiss", "--split", "train", "--output", path)
    fitted.json(*export, "--format", "parquet", "--output", tmp_path / "v5.parquet")
    index, table = faiss.read_index(str(path)), pl.read_parquet(said["row_table"])
    assert index.ntotal == table.height == said["rows"] == sum(row[3] == "train" for row in rows())
    assert [rows()[row] for row in table["row"]] == table.select("text", "level0", "level1", "split").rows()
    expected = pl.read_parquet(tmp_path / "v5.parquet")["embedding"].to_numpy()
    similarities, ids = index.search(expected[:10], 3)
    train = np.array([row[3] == "train" for row in rows()])
    cosines = np.where(train, expected[:10] @ expected.T, -np.inf)
    assert np.allclose(similarities, -np.sort(-cosines, axis=1)[:, :3], atol=1e-6)
    assert np.allclose(np.take_along_axis(cosines, ids, axis=1), similarities, atol=1e-6)


def test_bad_requests_say_what_to_do(fitted, tmp_path):
    there = tmp_path / "there.parquet"
    there.write_text("mine")
    parquet, out = ("export", "--format", "parquet"), ("--output", tmp_path / "a.parquet")
    assert "--output" in fitted.fails(*parquet, "--method", "v5", "--output", there)
    assert there.read_text() == "mine"
    (tmp_path / "free.rows.parquet").write_text("mine")
    faiss = fitted.fails("export", "--format", "faiss", "--method", "v5", "--output", tmp_path / "free")
    assert "free.rows.parquet is already there" in faiss
    assert "no run with method joint" in fitted.fails(*parquet, "--method", "joint", *out)
    assert "64, 128, 192, 256" in fitted.fails(*parquet, "--method", "v5", "--dims", "64,65", *out)
    model = ("export", "--format", "sentence-transformers", "--method", "v5", "--output", tmp_path / "m")
    assert "truncate_dim" in fitted.fails(*model, "--dim", "64", status=2)
    assert "--dims" in fitted.fails(*parquet, "--method", "v5", "--quantize", "int8", *out, status=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["free.rows.parquet", "there.parquet"]


def test_a_head_that_gives_no_numbers_is_named(fitted, tmp_path):
    from safetensors.torch import load_file, save_file

    copy = Pipeline(tmp_path / "artifacts", tmp_path)
    shutil.copytree(fitted.artifacts, copy.artifacts)
    run = next(run for run in copy.json("runs", "list")["runs"] if run["method"] == "v5")
    path = Path(run["path"]) / "head.safetensors"
    tensors = load_file(path)
    tensors["input.bias"][0] = float("nan")
    save_file(tensors, path)
    said = copy.fails("export", "--run", run["id"], "--format", "parquet", "--output", tmp_path / "a.parquet")
    assert run["id"] in said
    assert not (tmp_path / "a.parquet").exists()


def test_a_checkpoint_of_qwen3s_kind_keeps_its_end_token(pipeline, tmp_path, qwen_tokenizer):
    checkpoint = tmp_path / "Qwen3 Tiny"
    script = [sys.executable, str(ROOT / "scripts" / "make_qwen3_checkpoint.py"), "--size", "tiny"]
    subprocess.run([*script, "--tokenizer", qwen_tokenizer, "--output", checkpoint], check=True, capture_output=True)
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
    assert check_folder(folder, run, texts, pooled).difference < 1e-6
    rounded = pooled * (1 + 0.01 * np.random.default_rng(1).standard_normal(pooled.shape, dtype=np.float32))
    if made_in == "in_bfloat16":
        assert check_folder(folder, run, texts, rounded).difference > 2e-3
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


@pytest.mark.parametrize(
    ("package", "kind"),
    [("sentence_transformers", "sentence-transformers"), ("faiss", "faiss"), ("onnxruntime", "onnx")],
)
def test_a_missing_extra_is_named(fitted, tmp_path, package, kind):
    (tmp_path / f"{package}.py").write_text("raise ImportError('not installed')\n")
    said = fitted.fails(
        "export", "--method", "v5", "--format", kind, "--output", tmp_path / "out", PYTHONPATH=f"{tmp_path}:{ROOT}"
    )
    assert "pip install" in said
    assert not (tmp_path / "out").exists()


def test_names_are_quoted_where_they_would_be_code_or_markdown(fitted, tmp_path):
    from pipeline.export.model_card import card_text

    (run, *_) = runs_by_id(Artifacts(fitted.artifacts), [fitted.json("runs", "list")["runs"][0]["id"]])
    scores = [{**score, "run": run.id} for score in fitted.json("score", "--method", run.method)["scores"][:1]]
    hostile = ["a|b `c`", "\x1b]52;c;\n# d"]
    record = {**run.record, "levels": hostile, "backbone": "<script>", "prompt": "`|\n", "dataset": "*`|-1"}
    folder = 'mo del"); import os #'
    card = card_text(type(run)(run.folder, record), scores, folder)
    assert f"SentenceTransformer({json.dumps(folder)}" in card
    assert "\x1b" not in card
    tokens = MarkdownIt("commonmark").enable("table").parse(card.split("---\n", 2)[2])
    cells = [
        "".join(token.content for token in after.children)
        for before, after in pairwise(tokens)
        if before.type == "th_open"
    ]
    assert cells == ["dims", *map(one_line, hostile), "module", "does"]
    shown = {token.type for inline in tokens for token in inline.children or ()}
    assert shown == {
        "text", "softbreak", "code_inline", "strong_open", "strong_close", "link_open", "link_close"
    }  # fmt: skip
    (title,) = (
        after.children for before, after in pairwise(tokens) if before.type == "heading_open" and before.tag == "h1"
    )
    assert "".join(token.content for token in title) == f"<script> with a {run.method} head for *`|"
