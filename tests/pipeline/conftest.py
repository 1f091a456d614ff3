"""The command line as people run it: real processes, real MiniLM weights, one small dataset embedded once."""

import functools
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ENVIRONMENT
from tests.pipeline.small_dataset import rows, write_csv
from tests.pipeline.warm_process import WarmProcess


@functools.cache
def warm() -> WarmProcess:
    return WarmProcess(ENVIRONMENT)


@dataclass(frozen=True)
class Pipeline:
    """Calls `pipeline` in a process of its own, on one artifacts folder."""

    artifacts: Path
    cwd: Path

    def __call__(
        self, *arguments: object, without: str | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command, `without` a package that cannot be imported then."""
        words = [str(argument) for argument in arguments]
        env = {**ENVIRONMENT, "HF_HUB_OFFLINE": "1", "PIPELINE_ARTIFACTS": str(self.artifacts), **environment}
        if warm().serves(env):
            return warm()(words, self.cwd, env, without)
        assert without is None, "only a forked process can be told what is not installed"
        return subprocess.run(
            [sys.executable, "-m", "pipeline.cli", *words],
            cwd=self.cwd,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    def json(self, *arguments: object, **environment: str) -> dict:
        done = self(*arguments, "--json", **environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def fails(self, *arguments: object, status: int = 1, without: str | None = None, **environment: str) -> str:
        """Asserts a failure in two lines, and returns them."""
        done = self(*arguments, without=without, **environment)
        assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr, done.stderr
        assert done.stdout == ""
        lines = done.stderr.splitlines()
        problem = [line for line in lines if line.startswith("error: ")]
        remedy = [line for line in lines if line.startswith("   do: ")]
        assert len(problem) == len(remedy) == 1, done.stderr
        return f"{problem[0]}\n{remedy[0]}"


@pytest.fixture(scope="session", autouse=True)
def warm_process_ends():
    yield
    if warm.cache_info().currsize:
        warm().close()


@pytest.fixture(scope="session")
def small_csv(tmp_path_factory) -> Path:
    return write_csv(tmp_path_factory.mktemp("data") / "small.csv", rows())


@pytest.fixture
def pipeline(tmp_path) -> Pipeline:
    """An empty artifacts folder."""
    return Pipeline(tmp_path / "artifacts", tmp_path)


@pytest.fixture(scope="session")
def fitted_once(tmp_path_factory, small_csv) -> Path:
    """The small dataset embedded and a v5 and an mrl head fitted: artifacts that nothing else was written into."""
    root = tmp_path_factory.mktemp("fitted-once")
    made = Pipeline(root / "artifacts", root)
    made.json("embed", small_csv, "--backbone", "minilm")
    made.json("fit-head", "--method", "v5,mrl", "--seeds", "1,2", "--epochs", "2")
    return made.artifacts


@pytest.fixture(scope="session")
def fitted(fitted_once, tmp_path_factory) -> Pipeline:
    """The fitted artifacts, which tests only read; their commands keep scores and the like there."""
    root = tmp_path_factory.mktemp("fitted")
    return Pipeline(shutil.copytree(fitted_once, root / "artifacts", symlinks=True), root)


@pytest.fixture
def copy(fitted_once, tmp_path) -> Pipeline:
    """The fitted artifacts, to be changed or harmed."""
    return Pipeline(shutil.copytree(fitted_once, tmp_path / "artifacts", symlinks=True), tmp_path)
