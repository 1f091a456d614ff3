"""What is published: the sdist, the wheel made of it, and `pipeline` from the wheel where a folder could hide it."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from tests.pipeline.small_dataset import rows, write_csv

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


def run(*command: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env={**kept, "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def built(kind: str, source: Path, output: Path) -> Path:
    """What the build backend makes of a source tree."""
    output.mkdir(exist_ok=True)
    code = f"import sys, hatchling.build as backend; backend.build_{kind}(sys.argv[1])"
    done = run(sys.executable, "-c", code, output, cwd=source)
    assert done.returncode == 0, done.stderr
    (made,) = output.glob("*.tar.gz" if kind == "sdist" else "*.whl")
    return made


def test_every_requirement_has_its_measured_version():
    project = PROJECT["project"]
    wanted = sum(project["optional-dependencies"].values(), project["dependencies"])
    names = {re.split(r"[^A-Za-z0-9._-]", line)[0].lower() for line in wanted} - {project["name"]}
    pins = [line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    assert names <= set(pins)
    assert len(pins) == len(set(pins))


@pytest.fixture(scope="module")
def distributions(tmp_path_factory) -> tuple[Path, Path]:
    """The sdist, and the wheel built from nothing but the sdist."""
    pytest.importorskip("hatchling", reason="needs the build backend: pip install hatchling")
    root = tmp_path_factory.mktemp("distributions")
    sdist = built("sdist", ROOT, root / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(root, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))  # from 3.11.4 on
    return sdist, built("wheel", root / sdist.name.removesuffix(".tar.gz"), root / "wheel")


@pytest.fixture(scope="module")
def installed(distributions, tmp_path_factory) -> Path:
    """The programs of a fresh environment: the wheel's, with this environment's dependencies but not its packages."""
    root = tmp_path_factory.mktemp("fresh")
    venv.create(root, with_pip=False)
    (site,) = root.glob("lib/python*/site-packages")
    python = root / "bin" / "python"
    by_pip = importlib.util.find_spec("pip") is not None  # an environment that uv made has none
    pip = (sys.executable, "-m", "pip", "--python", python) if by_pip else ("uv", "pip")
    to = () if by_pip else ("--python", python)
    done = run(*pip, "install", *to, "--quiet", "--no-deps", "--no-index", distributions[1], cwd=root)
    assert done.returncode == 0, done.stderr
    (site / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    return root / "bin"


def test_sdist_and_wheel_hold_what_they_should_and_pass_twine(distributions):
    sdist, wheel = distributions
    files = {
        path.relative_to(ROOT).as_posix() for name in PACKAGES for path in (ROOT / name).rglob("*") if shipped(path)
    }
    assert {f"{name}/py.typed" for name in PACKAGES} <= files
    assert "pipeline/report/templates/page.html" in files
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name for name in names if ".dist-info/" not in name} == files
    assert any(name.endswith("licenses/LICENSE") for name in names)
    with tarfile.open(sdist) as archive:
        assert files <= {name.partition("/")[2] for name in archive.getnames()}
    pytest.importorskip("twine", reason="needs twine: pip install twine")
    done = run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel, cwd=sdist.parent)
    assert (done.returncode, done.stdout.count("PASSED")) == (0, 2), done.stdout + done.stderr


def shipped(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")


def test_the_wheel_alone_runs_in_a_folder_that_holds_data_and_cache_py(installed, tmp_path):
    write_csv(tmp_path / "small.csv", rows())
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "notes.txt").write_text("not a package")
    (tmp_path / "cache.py").write_text("raise SystemExit('the user\\'s own module was imported')\n")
    command = ("run", "small.csv", "--backbone", "minilm", "--methods", "mrl", "--head", "linear", "--epochs", "1")
    done = run(installed / "pipeline", *command, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / json.loads(done.stdout)["report"]["path"]).is_file()
    found = run(installed / "python", "-c", "import cache; print(cache.__file__)", cwd=installed)
    assert Path(found.stdout.strip()).is_relative_to(installed.parent), "another installation was tested"


@pytest.mark.parametrize("name", ["cache.py", "data/__init__.py"])
def test_a_module_that_hides_ours_is_named_in_one_line(installed, tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("raise SystemExit('imported')\n")
    done = run(installed / "python", "-m", "pipeline.cli", "data", "list", cwd=tmp_path)
    problem, remedy = done.stderr.splitlines()
    assert done.returncode == 1
    assert problem.startswith(
        f"error: {path} is what Python imports as {path.relative_to(tmp_path).parts[0].split('.')[0]!r}"
    )
    assert remedy.startswith("   do: rename it")


def test_a_folder_of_data_that_is_no_package_hides_nothing(installed, tmp_path):
    (tmp_path / "data").mkdir()
    done = run(installed / "python", "-m", "pipeline.cli", "data", "list", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
