"""The web application: routes, the bearer key, limits, and errors in the protocol's form.

GET  /health           {"status": "ok", ...}; needs no key
GET  /v1/models        the one model
POST /v1/embeddings    OpenAI's embeddings; `dimensions` chooses the prefix
POST /v1/labels        the same request, answered with label paths
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pipeline.serve.engine import Answer, Engine
from pipeline.serve.protocol import Asked, Limits, RequestError, embeddings_reply, labels_reply, read_request

_LOG = logging.getLogger("pipeline.serve")
Handler = Callable[[Request], Awaitable[Response]]


def application(engine: Engine, model: str, key: str | None, limits: Limits) -> Starlette:
    """Make the application.

    :param model: the name under which the run is served.
    :param key: what `Authorization: Bearer` must carry; None asks for nothing.
    """
    handlers = _Handlers(engine, model, limits)

    def guarded(handler: Handler) -> Handler:
        async def checked(request: Request) -> Response:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            known = scheme.lower() == "bearer" and hmac.compare_digest(given.encode(), (key or "").encode())
            if key is not None and not known:
                raise RequestError(401, "the key is missing or wrong", code="invalid_api_key")
            return await handler(request)

        return checked

    return Starlette(
        routes=[
            Route("/health", handlers.health),
            Route("/v1/models", guarded(handlers.models)),
            Route("/v1/models/{name:path}", guarded(handlers.one_model)),
            Route("/v1/embeddings", guarded(handlers.embeddings), methods=["POST"]),
            Route("/v1/labels", guarded(handlers.labels), methods=["POST"]),
        ],
        exception_handlers={RequestError: _refused, HTTPException: _http_error, Exception: _failed},
    )


class _Handlers:
    """What answers each route."""

    def __init__(self, engine: Engine, model: str, limits: Limits) -> None:
        self._engine, self._model, self._limits = engine, model, limits
        self._listed = {"id": model, "object": "model", "owned_by": "local", "created": 0}

    async def embeddings(self, request: Request) -> Response:
        wanted, answer = await self._asked(request)
        vectors = await asyncio.to_thread(self._engine.embed, answer.features, wanted.dim)
        return JSONResponse(embeddings_reply(vectors, wanted, self._model, answer.tokens))

    async def labels(self, request: Request) -> Response:
        wanted, answer = await self._asked(request)
        paths, sure = await asyncio.to_thread(self._engine.label, answer.features, wanted.dim)
        levels, classes = (self._engine.run.record[name] for name in ("levels", "classes"))
        return JSONResponse(labels_reply(paths, sure, levels, classes, self._model, answer.tokens))

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._listed]})

    async def one_model(self, request: Request) -> Response:
        if request.path_params["name"] != self._model:
            raise RequestError(404, f"there is one model here: {self._model}", param="model", code="model_not_found")
        return JSONResponse(self._listed)

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "model": self._model, "dimensions": list(self._engine.head.dims)})

    async def _asked(self, request: Request) -> tuple[Asked, Answer]:
        body = await _body(request, self._limits)
        wanted = read_request(body, self._model, self._engine.head.dims, self._limits)
        return wanted, await _while_connected(request, self._engine.submit(wanted.texts, self._limits.tokens))


async def _while_connected(request: Request, future: Future[Answer]) -> Answer:
    """The engine's answer; nothing is computed for a client that has gone before its turn came."""
    answer = asyncio.wrap_future(future)
    gone = asyncio.ensure_future(request.receive())  # the body is read: what comes now is that the client went
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise RequestError(400, "the client went away before its answer")
        return answer.result()
    finally:
        answer.cancel()
        future.cancel()
        gone.cancel()


async def _body(request: Request, limits: Limits) -> bytes:
    """The body, read no further than it may be long."""
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > limits.body:
                raise RequestError(413, f"the body is longer than {limits.body:,} bytes")
            parts.append(part)
    except ClientDisconnect:
        raise RequestError(400, "the body ended early") from None
    return b"".join(parts)


async def _refused(request: Request, error: Any) -> Response:
    headers = {"Retry-After": "1"} if error.status == 503 else None
    return JSONResponse(error.to_json(), status_code=error.status, headers=headers)


async def _http_error(request: Request, error: Any) -> Response:
    return await _refused(request, RequestError(error.status_code, str(error.detail)))


async def _failed(request: Request, error: Exception) -> Response:
    # the class alone: the message may hold a text
    _LOG.error("a request failed: %s", type(error).__name__)
    return await _refused(request, RequestError(500, "the server failed at this request"))
