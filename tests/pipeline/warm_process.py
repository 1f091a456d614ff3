"""`pipeline` in a process of its own that need not import torch first: forked from one that has imported everything.

The process that starts the test workers starts one server for all of them (`served`), which imports when the first
asks. It forks for each worker (`WarmProcess`), and that process for each call: the child takes the call's folder,
environment and files for its output and becomes `python -m pipeline.cli ...`. It ends as an interpreter ends, but for
the modules, which it leaves to the system: taking them apart copies every page of the server, 0.3 CPU-seconds. A call
costs what its work costs instead of 2 CPU-seconds more. A variable that Python or a library reads while it starts or is
imported cannot be changed for a child: such a call needs a fresh interpreter. Libraries set such variables too, in the
test's own process: what is compared is the environment before any of them was imported.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = ("torch.export", "transformers.models.bert.modeling_bert", "polars", "h5py", "altair", "vl_convert")
FRESH = ("pipeline.cli", "cache.cluster")  # run as __main__; starts Ray
READ_LATE = ("HF_HUB_OFFLINE", "COLUMNS", "NO_COLOR")  # by what a call makes, not while a library is imported
SECONDS = 600  # after which a call is ended by SIGALRM
PLACE = "PYTEST_WARM_PROCESS"  # the variable that names the server's socket
Done = subprocess.CompletedProcess[str]


@contextlib.contextmanager
def served(environment: dict[str, str]) -> Iterator[None]:
    """Have a server, for this process and those that it starts; the server ends when its input does."""
    short = Path("/tmp")  # a socket's name has 100 characters or so
    with (
        tempfile.TemporaryDirectory(dir=short if short.is_dir() else None) as folder,
        socket.socket(socket.AF_UNIX) as listener,
    ):
        os.environ[PLACE] = f"{folder}/calls"
        listener.bind(os.environ[PLACE])
        listener.listen()
        with subprocess.Popen(
            [sys.executable, "-m", "tests.pipeline.warm_process", str(listener.fileno())],
            cwd=ROOT,
            env={**_without_pytest(environment), "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.PIPE,
            pass_fds=[listener.fileno()],
        ):
            listener.close()
            yield


class WarmProcess:
    """Runs `pipeline` commands, one at a time."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = _without_pytest(environment)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(os.environ[PLACE])
            self._calls = connection.makefile("rw", encoding="utf-8")

    def serves(self, environment: dict[str, str]) -> bool:
        """Whether a child can be given this environment: only variables that are read during a call differ."""
        mine, theirs = self._environment, _without_pytest(environment)
        differ = {name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name)}
        return all(name.startswith("PIPELINE_") or name in READ_LATE for name in differ)

    def __call__(
        self, arguments: list[str], cwd: Path, environment: dict[str, str], without: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one, as if the package `without`, which no module imports before it needs it, were not installed."""
        with tempfile.TemporaryDirectory() as folder:
            output = [f"{folder}/stdout", f"{folder}/stderr"]
            request = {"arguments": arguments, "cwd": str(cwd), "environment": environment, "output": output}
            request["without"] = without
            self._calls.write(json.dumps(request) + "\n")
            self._calls.flush()
            status = self._calls.readline()
            if not status:
                raise RuntimeError("the process that serves calls has ended")
            texts = [Path(path).read_text(encoding="utf-8") for path in output]
        return Done(arguments, int(status), *texts)

    def close(self) -> None:
        self._calls.close()


def _without_pytest(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}


def _import_everything() -> None:
    ours = (
        module.name
        for package in ("data", "cache", "heads", "pipeline")
        for module in pkgutil.walk_packages([str(ROOT / package)], f"{package}.")
        if not module.name.startswith(FRESH)
    )
    for name in (*LIBRARIES, *ours):
        with contextlib.suppress(ImportError):  # an extra that is not installed
            importlib.import_module(name)
    gc.collect()
    gc.freeze()


def _asked(listener: socket.socket) -> bool:
    """Waits until a worker asks, or the input ends."""
    return listener in select.select([listener, sys.stdin], [], [])[0]


def _next_worker(listener: socket.socket) -> socket.socket:
    """Serves workers until the input ends; returns in a forked child for each, with the connection to it."""
    serving = []
    while _asked(listener):
        connection, _ = listener.accept()
        child = os.fork()
        if child == 0:
            listener.close()
            return connection
        serving.append(child)
        connection.close()
    for child in serving:  # whoever still holds a connection makes no call any more
        os.kill(child, signal.SIGTERM)
    with contextlib.suppress(ChildProcessError):  # until the last has ended, whose seconds are then counted
        while True:
            os.wait()
    sys.exit()


def _next_call(connection: socket.socket) -> list[str]:
    """Serves a worker's calls until it leaves; returns in each forked child, with its call's arguments."""
    calls = connection.makefile("rw", encoding="utf-8")
    connection.close()  # the file keeps it open
    for line in calls:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            calls.close()
            _become(request["cwd"], request["environment"], request["output"])
            if request["without"]:
                sys.modules[request["without"]] = None
            return request["arguments"]
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=calls, flush=True)
    sys.exit()


def _become(cwd: str, environment: dict[str, str], output: list[str]) -> None:
    signal.alarm(SECONDS)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, path in enumerate((os.devnull, *output)):
        opened = os.open(path, os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    sys.path[0] = cwd


def _status_of_call() -> int:
    """What `python -m pipeline.cli` ends with."""
    try:
        runpy.run_module("pipeline.cli", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _end(status: int) -> NoReturn:
    """As an interpreter ends, up to where it takes its modules apart."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    place = socket.socket(fileno=int(sys.argv[1]))
    if _asked(place):
        _import_everything()
    sys.argv[1:] = _next_call(_next_worker(place))
    _end(_status_of_call())
