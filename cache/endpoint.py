"""A server that speaks the OpenAI embeddings protocol, as a backbone: each text is asked for once, then stored.

text-embeddings-inference, vLLM, llama.cpp, Ollama and hosted ones answer `POST URL/embeddings` with a vector per text.
A call there is slow or paid, so the store matters more than for any model here: answers are committed as they come, an
interrupted run goes on, and a text that is stored is never asked for again. A server can also change behind its name:
the store keeps the vector of a probe text, and a server that answers it otherwise is refused. The URL is where the
model runs, not what it is, and no part of the fingerprint. The alternative, a file of vectors made elsewhere
(`pipeline embed --embeddings`), asks for everything again when one row is added.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.backbone.endpoint_requests import EmbeddingServer, as_vector
from cache.backbone.registry import Backbone
from cache.errors import CacheError
from cache.lookup import Lookup
from cache.plan import EmbedRequest
from cache.progress import EmbeddedLayer, EmbedReport, Meter, Progress, Tally
from cache.store.description import DESCRIPTION_FILE, description_of_vectors, read_description
from cache.store.store import FeatureStore
from cache.store.writer import ShardWriter

PROBE = "The quick brown fox jumps over the lazy dog."
_LEAST_COSINE = 0.999
_AT_ONCE = 4  # requests in flight
_TEXTS, _CHARACTERS = 128, 32_000  # of a request: about 8,000 tokens
_COMMIT_SECONDS = 2.0
_LOOK_SECONDS = 1.0


def embed_from_endpoint(
    texts: Iterable[str],
    request: EmbedRequest,
    *,
    total: int,
    progress: Progress | None = None,
) -> EmbedReport:
    """Ask a backbone's endpoint for the vectors of `texts` that the store under `request.root` lacks, and store them.

    :raises CacheError: the server cannot be reached or refuses; it answers the probe text otherwise than when the store
        was made; an answer is no vector of finite numbers of the store's length, by text. What was answered until then
        is stored.
    """
    began = time.perf_counter()
    backbone, root = request.resolved, Path(request.root)
    prompt = backbone.prompt if request.prompt is None else request.prompt
    known = _known_store(backbone, root)
    with contextlib.ExitStack() as stack:
        server = EmbeddingServer(backbone.source, str(backbone.endpoint))
        folder, description = known or _new_store(backbone, root, server.vector(PROBE))
        lookup, tally = Lookup(texts, [FeatureStore.create(folder, description)], prompt), Tally()
        meter = Meter(total, progress, lambda: lookup.reused)
        missing = _requests(lookup)
        first = next(missing, None)
        if first is not None:
            if known is not None:
                _compare_probe(server, description)
            writer = stack.enter_context(ShardWriter(folder, description, seconds=_COMMIT_SECONDS))
            for keys, vectors in _answered(
                server, itertools.chain([first], missing), prompt, int(description["hidden_size"])
            ):
                writer.append(keys, vectors)
                tally.computed += len(keys)
                meter.count(len(keys), "computing")
    meter.count(0, "done")
    layer = EmbeddedLayer(int(description["layer"]), str(description["fingerprint"]), folder)
    seconds = time.perf_counter() - began
    return EmbedReport(
        texts=lookup.texts,
        computed=tally.computed,
        seconds=seconds,
        stages=dict(tally.stages),
        dtype="float32",
        device="endpoint",
        stores=(layer,),
        notes=(*backbone.notes, f"vectors of {backbone.source} as {backbone.endpoint} gives them, stored as float32"),
    )


def _origin(backbone: Backbone) -> str:
    """Return the address of what determines an answer, as far as it can be known here: the model's name, the prompt."""
    facts = {"protocol": "openai", "model": backbone.source, "prompt": backbone.prompt if backbone.prompt_asked else ""}
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()


def _known_store(backbone: Backbone, root: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the store that holds this model's vectors already."""
    for path in sorted(root.glob(f"{backbone.name}-*/{DESCRIPTION_FILE}")):
        description = read_description(path.parent)
        if description.get("origin") == _origin(backbone):
            return path.parent, description
    return None


def _new_store(backbone: Backbone, root: Path, probe: NDArray[np.float32]) -> tuple[Path, dict[str, Any]]:
    origin = _origin(backbone)
    digits = hashlib.blake2b(f"{origin} {len(probe)} float32".encode(), digest_size=16).hexdigest()
    description = description_of_vectors(backbone.name, digits, origin, len(probe), "endpoint")
    description |= {"model": backbone.source, "probe": {"text": PROBE, "vector": [float(value) for value in probe]}}
    return root / f"{backbone.name}-{digits[:12]}", description


def _compare_probe(server: EmbeddingServer, description: dict[str, Any]) -> None:
    """Refuse a server that answers the probe text otherwise than when the store was made."""
    kept = np.array(description["probe"]["vector"], np.float64)
    now = server.vector(str(description["probe"]["text"])).astype(np.float64)
    what = f"{len(now)} dimensions instead of {len(kept)}"
    if len(now) == len(kept):
        cosine = float(now @ kept / (np.linalg.norm(now) * np.linalg.norm(kept)))
        if cosine >= _LEAST_COSINE:
            return
        what = f"cosine {cosine:.4f}"
    raise CacheError(
        f"{server.model} at {server.url} is not the model whose vectors are stored: it answers the probe with {what}",
        "serve the model that the store was made with, or name another --artifacts folder for the new one",
    )


Request = tuple[list[str], "NDArray[np.uint8]"]


def _requests(lookup: Lookup) -> Iterator[Request]:
    """Yield texts and keys for a request each, bounded in texts and in characters."""
    for item in lookup.missing():
        start, characters = 0, 0
        texts = list(item.texts)
        for at, text in enumerate(texts):
            if at > start and (at - start == _TEXTS or characters + len(text) > _CHARACTERS):
                yield texts[start:at], item.keys[start:at]
                start, characters = at, 0
            characters += len(text)
        yield texts[start:], item.keys[start:]


def _answered(
    server: EmbeddingServer, requests: Iterator[Request], prompt: str, dim: int
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """Yield keys and vectors as they are answered, some requests at a time.

    After an error nothing more is asked; what is in flight is waited for and yielded, then the error raised.
    """
    waiting: dict[Future[list[Any]], Request] = {}
    failed: CacheError | None = None
    # closed before the pool waits for its threads: an interrupt must not wait until they give the server up
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="endpoint") as pool, contextlib.closing(server):
        while True:
            while failed is None and len(waiting) < _AT_ONCE and (request := next(requests, None)) is not None:
                waiting[pool.submit(server.answers, [prompt + text for text in request[0]])] = request
            if not waiting:
                break
            # not for ever: an interrupt that another thread was given is seen when this one runs again
            for future in wait(waiting, _LOOK_SECONDS, FIRST_COMPLETED).done:
                texts, keys = waiting.pop(future)
                try:
                    answers = future.result()
                except CacheError as error:
                    failed = failed or error
                    server.close()
                    continue
                good, vectors, odd = _checked(answers, dim, texts, server.model)
                failed = failed or odd
                if good:
                    yield keys[good], vectors
    if failed is not None:
        raise failed


def _checked(
    answers: list[Any], dim: int, texts: list[str], model: str
) -> tuple[list[int], NDArray[np.float32], CacheError | None]:
    """Return which answers are vectors of `dim` finite numbers, these float32 [m, dim], and what the first other is."""
    good, vectors, odd = [], [], None
    for number, (answer, text) in enumerate(zip(answers, texts, strict=True)):
        found = as_vector(answer)
        if isinstance(found, str) or len(found) != dim:
            what = found if isinstance(found, str) else f"{len(found)} numbers instead of {dim}"
            remedy = "take that text out, or serve a model that gives one vector per text; what was answered is stored"
            odd = odd or CacheError(f"{model} answers {text[:60]!r} with {what}", remedy)
            continue
        good.append(number)
        vectors.append(found)
    return good, np.array(vectors, np.float32).reshape(len(good), dim), odd
