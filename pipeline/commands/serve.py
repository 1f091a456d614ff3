"""`pipeline serve`: a run behind the OpenAI embeddings protocol."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.terminal.command import Session, command
from pipeline.terminal.options import backbone_options, run_options

if TYPE_CHECKING:
    from pipeline.workspace.runs import Run

KEY = "PIPELINE_API_KEY"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_GRACE_SECONDS = 10


@command("serve", example="pipeline serve --method joint --port 8000")
@run_options
@click.option("--host", default="127.0.0.1", show_default=True, help=f"Any other than loopback needs {KEY}.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option("--name", help="Name of the model in the protocol (default: method and head).")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1.")
@click.option("--max-texts", type=click.IntRange(1), default=2048, show_default=True, help="Texts of a request.")
@click.option("--max-tokens", type=click.IntRange(1), default=300_000, show_default=True, help="Tokens of a request.")
@click.option("--max-body", type=click.IntRange(1), default=8 << 20, show_default=True, help="Bytes of a request.")
@backbone_options
def COMMAND(session: Session, host: str, port: int, **options: Any) -> dict[str, Any]:
    """Serve a run as OpenAI's embeddings: /v1/embeddings (dimensions chooses the prefix), /v1/labels, /health.

    The openai client, LangChain or a database's ingestion use it by its address, http://HOST:PORT/v1. Texts of requests
    that arrive together are computed together; features are kept in the store. A bearer key is asked for where the
    environment has PIPELINE_API_KEY. Ctrl-C answers what is waiting and ends.
    """
    from pipeline.errors import PipelineError
    from pipeline.serve.protocol import Limits
    from pipeline.stages.run_asked import run_asked
    from pipeline.terminal import extras

    for module in ("starlette", "uvicorn"):
        extras.needed(module)
    key = os.environ.get(KEY) or None
    if key is None and host not in _LOOPBACK:
        raise PipelineError(
            f"--host {host} can be reached by others, and there is no key", f"set {KEY}, or leave it out"
        )
    run = run_asked(session, options)
    limits = Limits(options["max_body"], options["max_texts"], options["max_tokens"])
    return _serve(session, run, host, port, key, limits, options)


def _serve(
    session: Session, run: Run, host: str, port: int, key: str | None, limits: Any, options: dict[str, Any]
) -> dict[str, Any]:
    import uvicorn

    from cache.workers import choose_devices
    from pipeline.serve.app import application
    from pipeline.serve.engine import Engine

    name = options["name"] or f"{run.method}-{run.record['head']}"
    named = options["backbone"]
    source = named if named and Path(named).is_dir() else None
    with _listening(host, port) as listener:
        address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}/v1"
        with Engine(session.artifacts, run, choose_devices(options["device"])[0], source) as engine:
            config = uvicorn.Config(
                application(engine, name, key, limits),
                access_log=False,
                log_level="error",
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
            server = uvicorn.Server(config)

            def stop(*signals: object) -> None:
                server.should_exit = True

            before = {which: signal.signal(which, stop) for which in (signal.SIGINT, signal.SIGTERM)}
            server.capture_signals = nullcontext  # those above end it without ending the process
            session.console.say(f"serving {name} at {address}" + ("" if key else " without a key"))
            try:
                server.run(sockets=[listener])
            finally:
                for which, handler in before.items():
                    signal.signal(which, handler)
        session.console.say("stopped")
    return {"run": run.id, "model": name, "address": address, "requests": server.server_state.total_requests}


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    try:  # who comes before the loop runs waits
        return socket.create_server((host, port), family=family, backlog=1024, dualstack_ipv6=both)
    except OSError as error:
        from pipeline.errors import PipelineError

        why = str(error.strerror).partition(" (while")[0]  # Python names the address again
        raise PipelineError(f"{host}:{port} cannot be listened on: {why}", "name another --port") from error
