"""The endpoint as clients use it: a real process, the real openai client, many at once, and nonsense."""

from __future__ import annotations

import base64
import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import polars as pl
import pytest

from heads import load
from semantic_zoom import Zoom
from tests.pipeline.conftest import Pipeline
from tests.pipeline.small_dataset import rows

pytestmark = pytest.mark.skipif(None in map(find_spec, ("openai", "uvicorn")), reason="openai or [serve] is missing")

KEY = "a key of the test"
TEXTS = [row[0] for row in rows()]
NEW = [f"a question that nobody embedded, number {number}" for number in range(40)]
DIMS = (64, 128, 192, 256)


@dataclass(frozen=True)
class Server:
    """A running `pipeline serve`, what it serves, and what it has written to stderr."""

    process: subprocess.Popen
    port: int
    run: dict
    made: Pipeline
    said: list[str]

    def client(self):
        import openai

        return openai.OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key=KEY, max_retries=0)

    def post(self, path: str, body: bytes, key: str | None = KEY) -> tuple[int, dict]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        found = answer.status, json.loads(answer.read())
        connection.close()
        return found


def started(made: Pipeline, *options: str) -> Server:
    run = next(run for run in made.json("runs", "list")["runs"] if run["method"] == "v5" and run["seed"] == 1)
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "serve", "--run", run["id"], "--port", "0", *options],
        cwd=made.cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PIPELINE_ARTIFACTS": str(made.artifacts), "PIPELINE_API_KEY": KEY},
    )  # fmt: skip
    said: list[str] = []
    for line in process.stderr:
        said.append(line)
        if "serving" in line:
            break
    else:
        raise AssertionError("".join(said))
    threading.Thread(target=lambda: said.extend(process.stderr), daemon=True).start()
    return Server(process, int(said[-1].split("127.0.0.1:")[1].split("/")[0]), run, made, said)


@pytest.fixture(scope="module")
def server(fitted, tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    shutil.copytree(fitted.artifacts, root / "artifacts")
    made = started(
        Pipeline(root / "artifacts", root), "--max-texts", "50", "--max-tokens", "2000", "--max-body", "30000"
    )
    yield made
    made.process.send_signal(signal.SIGTERM)
    made.process.communicate(timeout=60)


@pytest.fixture(scope="module")
def expected(server):
    """The run's own embeddings of the dataset's texts, from its store."""
    path = server.made.cwd / "own.parquet"
    server.made.json("export", "--run", server.run["id"], "--format", "parquet", "--dims", "64,128,192,256",
                     "--output", path)  # fmt: skip
    frame = pl.read_parquet(path)
    return {dim: dict(zip(frame["text"], frame[f"embedding_{dim}"].to_numpy(), strict=True)) for dim in DIMS}


@pytest.mark.parametrize("encoding", ["float", "base64"])
@pytest.mark.parametrize("dim", [64, 256])
def test_the_openai_client_gets_the_runs_own_prefixes(server, expected, dim, encoding):
    (model,) = (model.id for model in server.client().models.list())
    reply = server.client().embeddings.create(model=model, input=TEXTS[:40], dimensions=dim, encoding_format=encoding)
    assert [row.index for row in reply.data] == list(range(40))
    assert reply.usage.total_tokens > 40
    for text, row in zip(TEXTS, reply.data, strict=False):
        found = np.frombuffer(base64.b64decode(row.embedding), "<f4") if encoding == "base64" else row.embedding
        np.testing.assert_allclose(found, expected[dim][text], atol=1e-5)


def test_many_clients_at_once_get_their_own_answers(server, expected):
    client = server.client()
    (model,) = (model.id for model in client.models.list())

    def ask(seed):
        rng = random.Random(seed)
        texts, dim = rng.choices(TEXTS, k=rng.randint(1, 9)), rng.choice(DIMS)
        reply = client.embeddings.create(model=model, input=texts, dimensions=dim)
        return max(
            np.abs(row.embedding - expected[dim][text]).max() for text, row in zip(texts, reply.data, strict=True)
        )

    with ThreadPoolExecutor(16) as pool:
        assert max(pool.map(ask, range(200))) < 1e-5


def test_labels_are_paths_of_the_tree_and_those_that_encode_and_a_zoom_give(server, tmp_path):
    status, reply = server.post("/v1/labels", json.dumps({"input": TEXTS[:20], "dimensions": 64}).encode())
    assert status == 200
    tree = {row[1:3] for row in rows()}
    for answer in reply["data"]:
        assert tuple(level["label"] for level in answer["labels"]) in tree
        coarse, fine = (level["confidence"] for level in answer["labels"])
        assert 0 <= fine <= coarse <= 1
    zoom = Zoom.load(server.run["path"], store=server.made.artifacts / "features").predict(TEXTS[:20], dim=64)
    source, encoded = tmp_path / "texts.txt", tmp_path / "encoded.parquet"
    source.write_text("\n".join(TEXTS[:20]))
    server.made.json("encode", source, "--run", server.run["id"], "--dim", "64", "--output", encoded)
    table = pl.read_parquet(encoded)
    for answer, one, row in zip(reply["data"], zoom, table.to_dicts(), strict=True):
        names = [level["label"] for level in answer["labels"]]
        assert names == list(one.path) == [row[level["level"]] for level in answer["labels"]]
        sure = [level["confidence"] for level in answer["labels"]]
        assert sure == pytest.approx(one.confidence, abs=1e-5)
        assert sure == pytest.approx([row[f"{level['level']}_confidence"] for level in answer["labels"]], abs=1e-5)


BAD = [
    (b"", 400), (b"{", 400), (b"[]", 400), (b"\xff\xfe", 400), (b"[" * 20_000, 400), (b"{}", 400),
    (b'{"input": ""}', 400), (b'{"input": []}', 400), (b'{"input": ["a", ""]}', 400), (b'{"input": [1, 2]}', 400),
    (b'{"input": [["a"]]}', 400), (b'{"input": null}', 400), (b'{"input": {"a": 1}}', 400),
    (b'{"input": "\\ud800"}', 400), (b'{"input": "a", "model": 3}', 400), (b'{"input": "a", "model": "gpt"}', 404),
    (b'{"input": "a", "dimensions": 65}', 400), (b'{"input": "a", "dimensions": true}', 400),
    (b'{"input": "a", "dimensions": "64"}', 400), (b'{"input": "a", "dimensions": 1e400}', 400),
    (b'{"input": "a", "dimensions": {}}', 400), (b'{"input": "a", "encoding_format": "hex"}', 400),
    (b'{"input": "a", "encoding_format": []}', 400), (b'{"input": "' + b"a " * 16_000 + b'"}', 413),
    (json.dumps({"input": ["a"] * 51}).encode(), 400), (json.dumps({"input": ["word " * 500] * 8}).encode(), 400),
]  # fmt: skip


def test_a_thousand_malformed_requests_are_refused_in_the_protocols_form(server):
    secret = "SECRETWORD"
    whole = json.dumps({"input": [f"{secret} one", f"{secret} two"], "model": "x", "dimensions": 64}).encode()

    def ask(seed):
        rng = random.Random(seed)
        if seed < len(BAD):
            body, wanted = BAD[seed]
        else:
            damaged = bytearray(whole)
            for _ in range(rng.randint(1, 20)):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            body, wanted = bytes(damaged[: rng.randint(1, len(damaged))]), None
        status, reply = server.post(rng.choice(["/v1/embeddings", "/v1/labels"]), body)
        assert status == wanted or (wanted is None and 400 <= status < 500), (body, status, reply)
        assert set(reply["error"]) == {"message", "type", "param", "code"}
        assert secret not in json.dumps(reply)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(1000)))
    assert server.process.poll() is None
    assert secret not in "".join(server.said)
    assert "Traceback" not in "".join(server.said)


def test_a_key_is_asked_for_and_health_is_free(server):
    body = json.dumps({"input": TEXTS[0]}).encode()
    for key in (None, "wrong", "ключ".encode().decode("latin-1")):
        assert server.post("/v1/embeddings", body, key)[0] == 401
    assert server.post("/v1/embeddings", body)[0] == 200
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("POST", "/v1/embeddings", body, {"Authorization": f"bearer {KEY}"})
    assert connection.getresponse().status == 200
    connection.close()
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("GET", "/health")
    assert json.loads(connection.getresponse().read())["status"] == "ok"
    connection.request("GET", "/v1/embeddings", headers={"Authorization": f"Bearer {KEY}"})
    assert connection.getresponse().status == 405
    connection.close()


def test_what_it_computed_is_in_the_store_when_it_has_stopped(fitted, tmp_path):
    shutil.copytree(fitted.artifacts, tmp_path / "artifacts")
    made = Pipeline(tmp_path / "artifacts", tmp_path)
    server = started(made)
    answers = {}

    def ask(part):
        status, reply = server.post("/v1/embeddings", json.dumps({"input": NEW[part : part + 10]}).encode())
        assert status == 200
        answers.update(zip(NEW[part : part + 10], (row["embedding"] for row in reply["data"]), strict=True))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(0, 40, 10)))
    server.process.send_signal(signal.SIGINT)
    server.process.communicate(timeout=60)
    assert server.process.returncode == 0
    (tmp_path / "new.txt").write_text("\n".join(NEW) + "\n")
    said = made.json("encode", tmp_path / "new.txt", "--run", server.run["id"], "--output", tmp_path / "new.parquet")
    assert said["computed"] == 0  # what the endpoint computed, nobody computes again
    for text, vector in pl.read_parquet(tmp_path / "new.parquet").select("text", "embedding").iter_rows():
        np.testing.assert_allclose(answers[text], vector, atol=1e-6)
    assert load(server.run["path"]).dims == DIMS


def test_nothing_is_computed_for_a_client_that_has_gone(fitted, tmp_path):
    """Else one that asks and leaves makes everybody wait, and the end too."""
    shutil.copytree(fitted.artifacts, tmp_path / "artifacts")
    made = Pipeline(tmp_path / "artifacts", tmp_path)
    server = started(made)
    left = [f"{number} was asked by a client that has gone" for number in range(100)]

    def ask(texts):
        return server.post("/v1/embeddings", json.dumps({"input": texts}).encode())[0]

    with ThreadPoolExecutor(2) as pool:
        busy = pool.submit(ask, [f"{number} " + "long text " * 120 for number in range(120)])
        time.sleep(0.3)  # the engine has them
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request("POST", "/v1/embeddings", json.dumps({"input": left}).encode(),
                           {"Authorization": f"Bearer {KEY}"})  # fmt: skip
        time.sleep(0.3)
        connection.close()
        assert pool.submit(ask, TEXTS[:2]).result() == busy.result() == 200
    server.process.send_signal(signal.SIGTERM)
    server.process.communicate(timeout=60)
    assert server.process.returncode == 0
    (tmp_path / "left.txt").write_text("\n".join(left) + "\n")
    said = made.json("encode", tmp_path / "left.txt", "--run", server.run["id"], "--output", tmp_path / "left.parquet")
    assert said["computed"] == len(left)


def test_what_cannot_be_served_is_refused(fitted):
    key = {"PIPELINE_API_KEY": ""}
    assert "PIPELINE_API_KEY" in fitted.fails("serve", "--method", "v5", "--seed", "1", "--host", "0.0.0.0", **key)
    assert "no run with method joint" in fitted.fails("serve", "--method", "joint")
