"""Exports as others use them: loaded by the real sentence-transformers, polars, FAISS and scikit-learn."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import cache
import heads
from pipeline.errors import PipelineError
from pipeline.export.loading import HEAD, POOLING, TRANSFORMER, load_model
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


def plain(folder, *arguments, **settings):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(
        str(folder), *arguments, device="cpu", local_files_only=True, trust_remote_code=True, **settings
    )


def own(made: Pipeline, run_id: str, texts=TEXTS, **options) -> dict[int, np.ndarray]:
    """Our own prefix embeddings of texts: the run's backbone, its store, its head."""
    artifacts = Artifacts(made.artifacts)
    (run,) = runs_by_id(artifacts, [run_id])
    features = cache.embed(texts, run.record["backbone_source"], artifacts.features, **options)
    head = run.load()
    return {dim: head.embed(features.astype(np.float32), dim=dim) for dim in DIMS}


@pytest.fixture(scope="module")
def exported(fitted, tmp_path_factory):
    """The fitted v5 head as a model: its folder, what the command said, and the artifacts it came from."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    said = fitted.json(
        "export", "--method", "v5", "--seed", "1", "--format", "sentence-transformers", "--output", folder
    )
    return folder, said, fitted


@pytest.fixture(scope="module")
def in_float32(tmp_path_factory, small_csv):
    """A head on features computed and stored in float32, exported."""
    root = tmp_path_factory.mktemp("float32")
    made = Pipeline(root / "artifacts", root)
    backbone = cache.resolve("minilm")
    made.json("embed", small_csv, "--backbone", "minilm", "--dtype", "float32")
    artifacts = Artifacts(made.artifacts)
    report = cache.embed_missing(
        [row[0] for row in rows()],
        cache.EmbedRequest(backbone, artifacts.features, dtype="float32", store_dtype="float32"),
    )
    store = report.stores[0].folder.name
    (run,) = made.json("fit-head", "--method", "v5", "--epochs", "1", "--backbone", store)["runs"]
    folder = root / "model"
    said = made.json(
        "export", "--method", "v5", "--backbone", store, "--format", "sentence-transformers", "--output", folder
    )
    return folder, said, made, run["id"]


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


LOADED_ELSEWHERE = """
import json, sys
import numpy as np
from sentence_transformers import SentenceTransformer
folder, texts = sys.argv[1], json.load(open("texts.json"))
found = {}
for dim in (64, 128, 192, 256):
    if dim in (64, 256):
        model = SentenceTransformer(folder, truncate_dim=dim, device="cpu", trust_remote_code=True)
    model.truncate_dim = dim
    found[str(dim)] = model.encode(texts, batch_size=32 if dim < 100 else 3)
    similar = model.similarity(found[str(dim)], found[str(dim)])
    found[f"similarity {dim}"] = similar.numpy()
np.savez("found.npz", **found)
"""


def test_every_prefix_and_its_similarity_are_our_own_in_a_process_of_its_own(exported, tmp_path):
    folder, said, made = exported
    assert said.keys() >= {"format", "path", "run", "dims"}
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    subprocess.run([sys.executable, "-c", LOADED_ELSEWHERE, str(folder)], cwd=tmp_path, check=True, capture_output=True)
    expected = own(made, said["run"])
    with np.load(tmp_path / "found.npz") as found:
        for dim in DIMS:
            assert np.abs(found[str(dim)] - expected[dim]).max() < 2e-3
            assert np.abs(found[f"similarity {dim}"] - expected[dim] @ expected[dim].T).max() < 2e-3
    assert said["difference"] < 2e-3


def test_float32_features_give_float32_prefixes(in_float32):
    folder, said, made, run = in_float32
    assert said["difference"] < 1e-5
    model, exact = plain(folder), own_in_float32(made, run)
    for dim in DIMS:
        cut = model.encode(TEXTS, batch_size=4, truncate_dim=dim, normalize_embeddings=True)
        assert np.abs(cut - exact[dim]).max() < 1e-5
        model.truncate_dim = dim
        assert np.abs(model.encode(TEXTS, batch_size=4) - exact[dim]).max() < 1e-5
    default = own(made, run, dtype="float32")[64]  # from the store that holds float16
    model.truncate_dim = 64
    assert 1e-6 < np.abs(model.encode(TEXTS, batch_size=4) - default).max() < 2e-3


def own_in_float32(made, run_id):
    artifacts = Artifacts(made.artifacts)
    (run,) = runs_by_id(artifacts, [run_id])
    backbone = cache.resolve("minilm")
    report = cache.embed_missing(
        TEXTS, cache.EmbedRequest(backbone, artifacts.features, dtype="float32", store_dtype="float32")
    )
    features = cache.FeatureStore.open(report.stores[0].folder).gather(cache.text_keys(TEXTS))
    assert features.dtype == np.float32
    return {dim: run.load().embed(features, dim=dim) for dim in DIMS}


def test_vectors_cut_by_hand_have_any_length_and_the_right_similarity(exported):
    folder, said, made = exported
    expected = own(made, said["run"])[64]
    model = plain(folder)
    assert model.similarity_fn_name == "cosine"
    cut = model.encode(TEXTS)[:, :64]
    assert np.abs(np.linalg.norm(cut, axis=1) - 1).max() > 0.1
    assert np.abs(model.similarity(cut, cut).numpy() - expected @ expected.T).max() < 2e-3


def test_nothing_is_imported_that_was_not_asked_for_and_nothing_lies_in_the_folder_that_could_run(exported):
    from sentence_transformers import SentenceTransformer

    folder, _, _ = exported
    with pytest.raises(ValueError, match="trust_remote_code"):
        SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    model = load_model(folder, truncate_dim=64, device="cpu")
    assert np.array_equal(model.encode(TEXTS[:4]), plain(folder, truncate_dim=64).encode(TEXTS[:4]))
    suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".safetensors", ".txt", ".md"}
    assert str(ROOT) not in "".join(path.read_text() for path in folder.rglob("*.json"))


def test_another_class_is_refused_and_never_imported(exported, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(exported[0], copy, ignore=shutil.ignore_patterns("*.safetensors"))
    (copy / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    for row in ({"path": "", "type": "evil.Evil"}, {"path": "../elsewhere", "type": "evil.Evil"}):
        (copy / "modules.json").write_text(json.dumps([row]))
        with pytest.raises(PipelineError):
            load_model(copy)
    assert not (tmp_path / "ran").exists()


def test_the_head_of_the_folder_is_the_runs(exported):
    folder, said, made = exported
    head = heads.load(folder / "2_Head")
    (run,) = runs_by_id(Artifacts(made.artifacts), [said["run"]])
    features = np.random.default_rng(0).standard_normal((5, 384), dtype=np.float32)
    assert np.array_equal(head.embed(features, dim=128), run.load().embed(features, dim=128))


def test_saved_again_by_sentence_transformers_it_stays_the_same(exported, tmp_path):
    folder, _, _ = exported
    model = plain(folder, truncate_dim=128)
    model.save(str(tmp_path / "again"))
    for again in (plain(tmp_path / "again", truncate_dim=128), load_model(tmp_path / "again", 128, device="cpu")):
        assert np.array_equal(again.encode(TEXTS[:5]), model.encode(TEXTS[:5]))


def test_the_prefix_travels_to_another_process(exported):
    import pickle

    folder, _, _ = exported
    model = plain(folder, truncate_dim=64)
    copy = pickle.loads(pickle.dumps(model[2]))
    assert copy.prefix == 64
    model.truncate_dim = None
    assert model[2].prefix is None


def test_the_card_carries_scores_and_commands_that_make_the_run_again(exported, tmp_path, small_csv):
    folder, said, made = exported
    card = (folder / "README.md").read_text()
    assert card.startswith("---\n")
    assert 'base_model: "sentence-transformers/all-MiniLM-L6-v2"\nlicense: "apache-2.0"' in card
    (score,) = [s for s in made.json("score", "--method", "v5")["scores"] if s["run"] == said["run"]]
    for prefix in score["prefixes"]:
        row = next(line for line in card.splitlines() if line.startswith(f"| {prefix['dim']} |"))
        assert f"{prefix['levels'][0]['accuracy'] * 100:.1f} [" in row
    commands = card.split("```sh\n")[1].split("```")[0].strip().splitlines()
    again = Pipeline(tmp_path / "artifacts", small_csv.parent)
    for line in commands:
        done = again(*shlex.split(line)[1:])
        assert done.returncode == 0, done.stderr
    assert [run["id"] for run in again.json("runs", "list")["runs"]] == [said["run"]]


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


def test_faiss_finds_what_we_find(fitted, tmp_path):
    import faiss

    path = tmp_path / "v5.faiss"
    said = fitted.json(
        "export",
        "--method",
        "v5",
        "--seed",
        "1",
        "--format",
        "faiss",
        "--dim",
        "64",
        "--split",
        "train",
        "--output",
        path,
    )
    index, table = faiss.read_index(str(path)), pl.read_parquet(said["row_table"])
    assert index.ntotal == table.height == said["rows"] == sum(row[3] == "train" for row in rows())
    assert [rows()[row] for row in table["row"]] == table.select("text", "level0", "level1", "split").rows()
    expected = own(fitted, said["run"], [row[0] for row in rows()])[64]
    similarities, ids = index.search(expected[:10], 3)
    train = np.array([row[3] == "train" for row in rows()])
    cosines = np.where(train, expected[:10] @ expected.T, -np.inf)
    assert np.allclose(similarities, -np.sort(-cosines, axis=1)[:, :3], atol=1e-6)
    assert np.allclose(np.take_along_axis(cosines, ids, axis=1), similarities, atol=1e-6)


def test_bad_requests_say_what_to_do(fitted, tmp_path):
    there = tmp_path / "there.parquet"
    there.write_text("mine")
    parquet = ("export", "--format", "parquet")
    assert "--output" in fitted.fails(*parquet, "--method", "v5", "--output", there)
    assert there.read_text() == "mine"
    (tmp_path / "free.rows.parquet").write_text("mine")
    faiss = fitted.fails("export", "--format", "faiss", "--method", "v5", "--output", tmp_path / "free")
    assert "free.rows.parquet is already there" in faiss
    assert (tmp_path / "free.rows.parquet").read_text() == "mine"
    assert "no run with method joint" in fitted.fails(*parquet, "--method", "joint", "--output", tmp_path / "a.parquet")
    assert "64, 128, 192, 256" in fitted.fails(
        *parquet, "--method", "v5", "--dim", "65", "--output", tmp_path / "a.parquet"
    )
    model = ("export", "--format", "sentence-transformers", "--method", "v5", "--output", tmp_path / "m")
    assert "truncate_dim" in fitted.fails(*model, "--dim", "64", status=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["free.rows.parquet", "there.parquet"]


@pytest.mark.parametrize(
    ("package", "kind", "named"),
    [("sentence_transformers", "sentence-transformers", "sentence-transformers"), ("faiss", "faiss", "faiss-cpu")],
)
def test_a_missing_package_is_named(fitted, tmp_path, package, kind, named):
    (tmp_path / f"{package}.py").write_text("raise ImportError('not installed')\n")
    said = fitted.fails(
        "export", "--method", "v5", "--format", kind, "--output", tmp_path / "out", PYTHONPATH=str(tmp_path)
    )
    assert f"pip install {named}" in said
    assert not (tmp_path / "out").exists()


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
    model = plain(folder, truncate_dim=64)
    texts = [*TEXTS[:6], "a"]
    tokens = model.tokenizer(texts)["input_ids"]
    assert all(ids[-1] == END and ids[-2] != END for ids in tokens)
    model.max_seq_length = 4
    assert [ids[-1] for ids in model.tokenize([LONG])["input_ids"].tolist()] == [END]
    model = plain(folder, truncate_dim=64)
    expected = own(pipeline, said["run"], texts, dtype="float32")[64]
    assert np.abs(model.encode(texts) - expected).max() < 2e-3
    without = np.abs(plain_without_end(folder, texts) - expected).max()
    assert without > 1e-2  # the test could tell


def plain_without_end(folder, texts):
    model = plain(folder, truncate_dim=64)
    model.tokenizer.backend_tokenizer.post_processor = None
    return model.encode(texts)


def test_a_prompt_goes_along(in_bfloat16):
    folder, said, _ = in_bfloat16
    assert said["difference"] < 2e-3
    model = plain(folder, truncate_dim=64)
    expected = model.encode(TEXTS[:4])
    assert np.array_equal(model.encode_query(TEXTS[:4]), expected)
    assert np.array_equal(model.encode_document(TEXTS[:4]), expected)
    assert np.abs(model.encode(TEXTS[:4], prompt="") - expected).max() > 1e-2
    assert "`query: `" in (folder / "README.md").read_text()


def test_a_folder_checkpoint_is_what_it_holds_and_not_what_it_is_called(in_bfloat16):
    folder, _, _ = in_bfloat16
    card = (folder / "README.md").read_text()
    assert "a local checkpoint" in card
    assert "BAAI" not in card
    assert "license" not in card
    assert [path.name for path in folder.glob("*.safetensors")] == ["model.safetensors"]


def test_commands_of_the_card_keep_names_with_spaces_together(in_bfloat16):
    embed, fit = (in_bfloat16[0] / "README.md").read_text().split("```sh\n")[1].split("```")[0].strip().splitlines()
    assert shlex.split(embed) == [
        *("pipeline", "embed", "short rows.csv", "--backbone", "bge-small", "--levels", "the kind,key"),
        *("--text", "the text", "--dtype", "bfloat16"),
    ]
    assert shlex.split(fit)[:2] == ["pipeline", "fit-head"]


@pytest.mark.parametrize("made_in", ["in_float32", "in_bfloat16"])
def test_a_folder_that_lost_its_special_tokens_is_refused_and_the_whole_one_is_not(request, made_in, tmp_path):
    from sentence_transformers import SentenceTransformer

    folder, said, made = request.getfixturevalue(made_in)[:3]
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
    ("name", "content"),
    [
        ("modules.json", []),
        ("modules.json", {}),
        ("modules.json", [{"type": POOLING}]),
        ("modules.json", [{"type": POOLING, "path": "missing"}]),
        ("modules.json", [{"type": HEAD, "path": "missing"}]),
        ("modules.json", [{"type": TRANSFORMER, "path": "missing"}]),
        ("modules.json", [{"type": HEAD, "path": ""}, 3]),
        ("config_sentence_transformers.json", []),
    ],
)
def test_a_damaged_folder_is_refused_in_one_line(tmp_path, name, content):
    files = {"modules.json": [{"type": POOLING, "path": ""}], "config_sentence_transformers.json": {}, name: content}
    for file, value in files.items():
        (tmp_path / file).write_text(json.dumps(value))
    with pytest.raises(PipelineError) as caught:
        load_model(tmp_path, device="cpu")
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy == "export the run again"


def test_an_older_sentence_transformers_is_refused_with_a_remedy(monkeypatch):
    from sentence_transformers.models import Module

    monkeypatch.delattr(Module, "on_model_ready")
    monkeypatch.delitem(sys.modules, "heads.exported", raising=False)
    with pytest.raises(heads.HeadsError, match=r"needs sentence-transformers 6\.2 or later") as caught:
        importlib.import_module("heads.exported")
    assert "pip install" in caught.value.remedy
