"""How many files one reads to follow a command: the files and functions that it calls first, in that order.

    python scripts/count_files_touched.py          # embed and fit-head of a 360-row CSV through MiniLM, a minute
    python scripts/count_files_touched.py --list   # also the files, with how many functions each

A function counts when it is called for the first time, in any thread of the command's process; a change is one such
call whose file is another than the one before. Worker processes are not followed.
"""

from __future__ import annotations

import argparse
import csv
import inspect
import itertools
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = tuple(str(ROOT / name) for name in ("pipeline", "heads", "cache", "data"))


def main() -> None:
    """Run both commands, each traced."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="also print the files")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory(prefix="touched-") as folder:
        path = Path(folder, "small.csv")
        write_rows(path)
        artifacts = ["--artifacts", str(Path(folder, "artifacts")), "--json"]
        for name, command in (
            ("embed", ["embed", str(path), "--backbone", "minilm", "--devices", "cpu"]),
            ("fit-head", ["fit-head", "--method", "joint", "--epochs", "2"]),
        ):
            show(name, calls_of([*command, *artifacts]), listed=options.list)


def write_rows(path: Path) -> None:
    """360 texts in 3 classes of 3 classes."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "level0", "level1", "split"])
        for row in range(360):
            coarse, fine = row % 3, row // 3 % 3
            split = ("train", "train", "train", "val", "test")[row // 9 % 5]
            writer.writerow(
                [f"text {row} about subject {coarse} and matter {fine}", f"c{coarse}", f"c{coarse}f{fine}", split]
            )


def calls_of(arguments: list[str]) -> list[CodeType]:
    """Run a command; return the functions of the four packages in the order of their first calls."""
    from pipeline.cli import cli

    seen: dict[CodeType, None] = {}

    def trace(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_flags & inspect.CO_OPTIMIZED and code.co_filename.startswith(PACKAGES):
            seen.setdefault(code)

    out, sys.stdout = sys.stdout, sys.stderr
    threading.setprofile(trace)
    sys.setprofile(trace)
    try:
        cli.main(arguments, prog_name="pipeline", standalone_mode=False)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
        sys.stdout = out
    return list(seen)


def show(name: str, calls: list[CodeType], *, listed: bool) -> None:
    """Print the figures of one command."""
    files = [code.co_filename for code in calls]
    changes = sum(one != other for one, other in itertools.pairwise(files))
    sys.stdout.write(f"{name}: {len(set(files))} files, {len(calls)} functions, {changes} changes of file\n")
    if listed:
        for file, count in Counter(files).items():
            sys.stdout.write(f"  {Path(file).relative_to(ROOT)}  {count}\n")


if __name__ == "__main__":
    main()
