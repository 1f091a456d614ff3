"""An endpoint as a backbone, against a server on loopback: nothing asked twice, nothing wrong stored."""

from __future__ import annotations

import signal
import threading
import time

import numpy as np
import pytest

from cache import EmbedRequest, FeatureStore, embed_missing, resolve, text_keys
from cache.endpoint import PROBE
from cache.errors import CacheError
from tests.cache.embedding_server import DIM, LoopbackServer, vector_of

TEXTS = [f"text number {i}" for i in range(700)]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr("cache.backbone.endpoint_requests._FIRST_WAIT", 0.01)
    monkeypatch.setattr("cache.backbone.endpoint_requests._PATIENCE", 0.8)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    made = LoopbackServer()
    yield made
    made.stop()


def embed(server, root, texts=TEXTS, model="tiny", **changes):
    return embed_missing(texts, EmbedRequest(f"openai:{model}?endpoint={server.url}", root, **changes))


def stored(report, texts) -> np.ndarray:
    return FeatureStore.open(report.stores[0].folder).gather(text_keys(texts))


def expected(texts) -> np.ndarray:
    return np.array([vector_of(text) for text in texts], np.float32)


def test_shuffled_replies_are_placed_by_index_and_no_text_is_asked_twice(server, tmp_path):
    report = embed(server, tmp_path, [*TEXTS, *TEXTS[:50]])
    assert (report.texts, report.computed, report.reused) == (750, 700, 50)
    assert np.array_equal(stored(report, TEXTS), expected(TEXTS))
    again = embed(server, tmp_path)
    more = embed(server, tmp_path, [*TEXTS, "one more"])
    assert (again.computed, more.computed) == (0, 1)
    assert all(server.answered[text] == 1 for text in [*TEXTS, "one more"])
    assert server.answered[PROBE] == 2  # when the store was made, and before more was asked
    assert server.keys == {"Bearer sk-secret"}


def test_the_url_is_no_part_of_the_fingerprint_and_the_model_is(server, tmp_path):
    other = LoopbackServer()
    try:
        one, two = embed(server, tmp_path), embed(other, tmp_path)
        assert one.stores == two.stores
        assert two.computed == 0
        assert embed(server, tmp_path, model="another").stores != one.stores
    finally:
        other.stop()


def test_bursts_of_429_and_5xx_are_waited_out(server, tmp_path):
    server.busy = [429, 503, 429, 429, 500, 502]
    report = embed(server, tmp_path)
    assert np.array_equal(stored(report, TEXTS), expected(TEXTS))
    assert max(server.answered.values()) == 1


def test_a_server_that_dies_loses_nothing_that_it_answered(server, tmp_path):
    server.die_after = 4
    with pytest.raises(CacheError, match="tiny at http") as caught:
        embed(server, tmp_path)
    assert "what was answered is stored" in caught.value.remedy
    assert 0 < sum(server.answered.values()) - 1 < len(TEXTS)
    server.stop()
    server.die_after = None
    server.start()
    report = embed(server, tmp_path)
    assert np.array_equal(stored(report, TEXTS), expected(TEXTS))
    assert max(count for text, count in server.answered.items() if text != PROBE) == 1


def test_an_interrupt_does_not_wait_for_a_server_that_is_gone(server, tmp_path, monkeypatch):
    monkeypatch.setattr("cache.backbone.endpoint_requests._PATIENCE", 100.0)
    server.die_after = 1  # after the probe
    # to a thread of its own, which the system may give it to: it does not wake the main thread
    threading.Timer(1.0, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT)).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        embed(server, tmp_path)
    assert time.monotonic() - began < 40


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (vector_of("x")[:-1], f"{DIM - 1} numbers instead of {DIM}"),
        ([vector_of("x"), vector_of("y")], "2 vectors, one per token"),
        ([None] * DIM, "other things than numbers"),
        ([1e60] * DIM, "not finite"),
        ([], "not a list of numbers"),
        ("abc", "str, not a list of numbers"),
    ],
)
def test_an_odd_answer_is_named_and_the_others_are_stored(server, tmp_path, answer, says):
    server.odd[TEXTS[123]] = answer
    with pytest.raises(CacheError, match=says) as caught:
        embed(server, tmp_path, TEXTS[:200])
    assert repr(TEXTS[123]) in str(caught.value)
    server.odd.clear()
    report = embed(server, tmp_path, TEXTS[:200])
    assert report.computed == 1
    assert np.array_equal(stored(report, TEXTS[:200]), expected(TEXTS[:200]))


@pytest.mark.parametrize(
    "damage",
    [
        lambda rows: rows[:-1],
        lambda rows: [*rows, rows[0]],
        lambda rows: [{**row, "index": 0} for row in rows],
        lambda rows: [{**row, "index": row["index"] + 1} for row in rows],
        lambda rows: [{"embedding": row["embedding"]} for row in rows],
        lambda rows: "no rows",
    ],
)
def test_replies_that_are_short_or_doubled_are_refused_whole(server, tmp_path, damage):
    embed(server, tmp_path, TEXTS[:1])
    server.after = lambda rows: rows if len(rows) == 1 else damage(rows)
    with pytest.raises(CacheError, match="tiny at http") as caught:
        embed(server, tmp_path, TEXTS[:20])
    assert "\n" not in str(caught.value) + caught.value.remedy
    server.after = lambda rows: rows
    assert embed(server, tmp_path, TEXTS[:20]).computed == 19


def test_another_model_behind_the_name_is_noticed(server, tmp_path):
    embed(server, tmp_path, TEXTS[:3])
    server.model_served = "changed"
    assert embed(server, tmp_path, TEXTS[:3]).computed == 0  # nothing is asked
    with pytest.raises(CacheError, match=r"not the model whose vectors are stored.*cosine"):
        embed(server, tmp_path, TEXTS[:4])


def test_refusals_do_not_show_the_key_and_are_not_tried_again(server, tmp_path):
    server.busy = [401]
    with pytest.raises(CacheError, match="HTTP 401") as caught:
        embed(server, tmp_path, TEXTS[:2])
    assert server.requests == 1
    report = embed(server, tmp_path, TEXTS[:2])
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and b"sk-secret" in path.read_bytes()]
    assert not kept
    assert "sk-secret" not in f"{caught.value}{caught.value.remedy}{report}"


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("openai:tiny", "endpoint"),
        ("minilm?endpoint=http://localhost", "endpoint"),
        ("openai:tiny?endpoint=ftp://x", "no http or https URL"),
        ("openai:tiny?endpoint=http://a b", "no http or https URL"),
        ("openai:tiny?endpoint=http://[::1", "no URL: Invalid IPv6"),
        ("openai:tiny?endpoint=http://localhost:port", "no URL: Port"),
        ("openai:tiny?endpoint=http://user:word@localhost", "a user or a password"),
        ("openai:tiny?endpoint=http://localhost&pooling=mean", "are the server's"),
        ("embeddings:mine", "vectors from a file"),
    ],
)
def test_wrong_names_are_refused(tmp_path, spec, says):
    with pytest.raises(CacheError, match=says):
        embed_missing(["a"], EmbedRequest(resolve(spec), tmp_path))
