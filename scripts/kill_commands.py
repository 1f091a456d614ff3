"""Kill commands at random instants, run them again, and compare with a run that nobody killed.

    python scripts/kill_commands.py [--kills 30] [--seed 0] [--commands sweep,fit-head]

Each kill (SIGKILL to the whole process group) hits a command that works on its own copy of one small artifacts folder;
where it had ended already, another instant is drawn. The same command, called again, must end well and give what the
unkilled one gave (heads and vectors bit by bit, figures without the measured times), and leave the same files, no
`.partial` and no other. Exit status 1 on a fault.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts.fuzz_artifacts import call, imported, made_for_it  # noqa: E402

COMMANDS: dict[str, tuple[str, ...]] = {
    "export": ("export", "--method", "v5", "--seed", "1", "--format", "parquet", "--output", "OUT/vectors.parquet"),
    "export model": (
        "export", "--method", "v5", "--seed", "1", "--format", "sentence-transformers", "--output", "OUT/model",
    ),
    "export index": (
        "export", "--method", "v5", "--seed", "1", "--format", "faiss", "--output", "OUT/v5.faiss",
    ),
    "sweep": ("sweep", "--methods", "v5,mrl", "--seeds", "7,8", "--epochs", "1", "--output", "OUT/sweep.parquet"),
    "fit-head": ("fit-head", "--method", "v5,mrl", "--seeds", "7,8", "--epochs", "2"),
    "retrieve": ("retrieve", "--candidates", "10,20", "--engines", "flat"),
    "reproduce": ("reproduce", "--seeds", "1,2", "--epochs", "2", "--corpus-size", "1000"),
}  # fmt: skip


def start(artifacts: Path, folder: Path, words: Sequence[str]) -> int:
    """The same as `call` in a process group of its own, not waited for; returns its id."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        call(artifacts, folder, words)
        os._exit(0)
    return child


def heads_of(artifacts: Path) -> dict[str, str]:
    """Digest of every head by its run."""
    found = artifacts.glob("runs/*/*/*/*/head.safetensors")
    return {path.parent.name: hashlib.blake2b(path.read_bytes()).hexdigest() for path in found}


def results(name: str, artifacts: Path, folder: Path, printed: Any) -> Any:
    """What a command made, without times."""
    if name in ("export", "export index"):
        return [hashlib.blake2b(path.read_bytes()).hexdigest() for path in sorted((folder / "out").iterdir())]
    if name == "export model":
        files = sorted(path for path in (folder / "out" / "model").rglob("*") if path.suffix == ".safetensors")
        return [(path.name, hashlib.blake2b(path.read_bytes()).hexdigest()) for path in files]
    if name == "sweep":
        scores = [kept.read_text() for kept in sorted(artifacts.glob("runs/*/*/*/*/scores.json"))]
        return (folder / "out" / "sweep.parquet").exists(), scores, heads_of(artifacts)
    if name == "fit-head":
        return heads_of(artifacts)
    if name == "retrieve":
        kept = ("method", "filter_dim", "candidates", "recall_at_10", "precision_at_10", "bytes_per_document")
        return [[row.get(key) for key in kept] for row in printed["results"]]
    return [(claim["id"], claim["verdict"], claim["measured"]) for claim in printed["claims"]]


def files_in(folder: Path) -> set[str]:
    """Every file and folder that a command left, but shards, whose names hold the time."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return {name for name in found if not name.endswith(".h5")}


@dataclass(frozen=True)
class Whole:
    """What a command that nobody kills takes (seconds), gives and leaves."""

    seconds: float
    given: str
    left: set[str]


def whole(name: str, base: Path) -> Whole:
    """Run a command on a copy."""
    with copied(base) as (folder, artifacts):
        words = words_of(name, folder)
        began = time.monotonic()
        done = call(artifacts, folder, words)
        if done.status:
            raise SystemExit(done.said)
        given = json.dumps(results(name, artifacts, folder, done.result), default=str)
        return Whole(time.monotonic() - began, given, files_in(folder))


@contextlib.contextmanager
def copied(base: Path) -> Iterator[tuple[Path, Path]]:
    """A folder with a copy of the artifacts and an empty folder `out`."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        artifacts = Path(shutil.copytree(base, folder / "artifacts"))
        (folder / "out").mkdir()
        yield folder, artifacts


def words_of(name: str, folder: Path) -> list[str]:
    """The words of a command that writes into `folder`."""
    return [word.replace("OUT", str(folder / "out")) for word in COMMANDS[name]]


def killed(name: str, base: Path, instant: float, expected: Whole) -> tuple[str | None, bool]:
    """Kill a command once and run it again; return what is wrong, if anything, and whether the kill hit it at work."""
    with copied(base) as (folder, artifacts):
        words = words_of(name, folder)
        child = start(artifacts, folder, words)
        time.sleep(instant)
        if os.waitpid(child, os.WNOHANG)[0] != 0:
            return None, False
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        again = call(artifacts, folder, words)
        if again.status:
            return f"the rerun fails: {again.said.strip()[-300:]}", True
        if json.dumps(results(name, artifacts, folder, again.result), default=str) != expected.given:
            return "the rerun gives another result", True
        other = sorted(files_in(folder) ^ expected.left)
        return (f"other files than without a kill: {', '.join(other)}" if other else None), True


def main() -> None:
    """Kill, run again, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", default=",".join(COMMANDS))
    parser.add_argument("--artifacts", type=Path, help="Embedded with `embed`, with runs of v5 and mrl, seeds 1 and 2.")
    given = parser.parse_args()
    imported()
    chance = random.Random(given.seed)
    names = given.commands.split(",")
    faults = missed = 0
    with tempfile.TemporaryDirectory() as place:
        base = Path(place) / "artifacts"
        shutil.copytree(given.artifacts, base) if given.artifacts else made_for_it(Path(place))
        known: dict[str, Whole] = {}
        for number in range(given.kills):
            name = names[number % len(names)]
            if name not in known:
                known[name] = whole(name, base)
            hit = False
            while not hit:
                fault, hit = killed(name, base, chance.uniform(0, known[name].seconds), known[name])
                missed += not hit
            faults += fault is not None
            if fault is not None:
                print(f"{number}: {name}: {fault}", flush=True)
    print(json.dumps({"kills": given.kills, "ended before the kill": missed, "faults": faults}))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
