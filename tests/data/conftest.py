"""Files to load, and the published ones where the environment has them."""

import os
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from data.checks import Rows

Write = Callable[[str, str | bytes], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file of the test's own folder and returns its path."""

    def written(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return written


@pytest.fixture(scope="session")
def clinc_folder() -> Path:
    """The folder that PIPELINE_DATA names, where it holds CLINC150; its text is never part of this repository."""
    named = os.environ.get("PIPELINE_DATA")
    if not named or not any(Path(named, sub, "data_full.json").is_file() for sub in ("clinc", ".")):
        pytest.skip("CLINC150 is not here: set PIPELINE_DATA to a folder with clinc/data_full.json and domains.json")
    return Path(named)


@pytest.fixture
def rows_of() -> Callable[..., Rows]:
    """Makes rows from tuples (text, coarse, fine, split)."""

    def made(*rows: tuple[str | None, ...], levels: tuple[str, ...] = ("coarse", "fine")) -> Rows:
        schema = dict.fromkeys(("text", *levels, "split"), pl.String)
        return Rows("made", pl.DataFrame(list(rows), schema=schema, orient="row"), levels)

    return made
