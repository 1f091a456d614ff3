"""The README.md of an exported model: what it is, how good it is, how it was made, how to load each prefix.

Everything in it comes from the run: the table is its scores under both protocols, the commands are those that make it
again. Nothing of the machine it was made on (paths) and no text of the data gets into it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cache
from cache.backbone import package_folder
from heads import hyperparameters
from pipeline.export.loading import HEAD, PACKED
from pipeline.workspace.artifacts import DatasetSource
from pipeline.workspace.runs import Run

LICENCES = {
    "qwen3-embedding-0.6b": "apache-2.0",
    "qwen3-0.6b": "apache-2.0",
    "minilm": "apache-2.0",
    "bge-small": "mit",
    "e5-small": "mit",
}
"""Licences of the weights, as their publishers state them on the hub."""
_TITLES = {
    "gallery": "test texts, nearest neighbours in the training split",
    "leave-one-out": "test texts against each other",
}


@dataclass(frozen=True)
class Card:
    """What a model card is made of: `scores` are records of `pipeline.evaluation.score`, one a protocol."""

    run: Run
    source: DatasetSource
    scores: Sequence[Mapping[str, Any]]
    card_name: str

    def text(self) -> str:
        """The whole card, Markdown with front matter."""
        parts = [
            self._front(), self._title(), self._loading(), self._table(), self._making(), self._parts(), self._origin(),
        ]  # fmt: skip
        return "\n\n".join(parts) + "\n"

    @property
    def _dims(self) -> list[int]:
        return list(self.run.record["dims"])

    def _known(self) -> cache.backbone.Backbone | None:
        """The table's row of the backbone; None for any other, such as a folder that happens to be called like one."""
        row = cache.backbone.BACKBONES.get(str(self.run.record["backbone"]))
        if row is None:
            return None
        packaged = package_folder(row.package) if row.package is not None else None
        return row if self.run.record["backbone_source"] in (row.name, row.source, str(packaged)) else None

    def _hub(self) -> str | None:
        """Hub id of the backbone, None for a checkpoint by path."""
        known, source = self._known(), str(self.run.record["backbone_source"])
        if known is not None:
            return known.source
        return None if Path(source).is_absolute() else source

    def _licence(self) -> str | None:
        known = self._known()
        return None if known is None else LICENCES.get(known.name)

    def _front(self) -> str:
        facts: dict[str, Any] = {
            "library_name": "sentence-transformers",
            "pipeline_tag": "sentence-similarity",
            "tags": ["sentence-transformers", "feature-extraction", "matryoshka", "semantic-zoom"],
        }
        if self._hub() is not None:
            facts["base_model"] = self._hub()
        if self._licence() is not None:
            facts["license"] = self._licence()
        lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in facts.items()]
        return "\n".join(["---", *lines, "---"])

    def _title(self) -> str:
        record = self.run.record
        levels = " > ".join(
            f"{len(classes):,} {name}" for name, classes in zip(record["levels"], record["classes"], strict=True)
        )
        dims = " and ".join(filter(None, [", ".join(map(str, self._dims[:-2])), str(self._dims[-2])]))
        return (
            f"# {record['backbone']} with a {record['method']} head for {self._dataset()}\n\n"
            f"Embeddings of {self._dims[-1]} dimensions whose first {dims} are embeddings too, trained for the "
            f"hierarchy {levels}. The backbone is frozen; a head of {record['parameters']:,} parameters was trained "
            "on its features."
        )

    def _dataset(self) -> str:
        return str(self.run.record["dataset"]).rsplit("-", 1)[0]

    def _loading(self) -> str:
        first = self._dims[0]
        return f"""## Use

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{self.card_name}", truncate_dim={first}, trust_remote_code=True)
embeddings = model.encode(texts)  # [n, {first}], unit vectors
model.similarity(embeddings, embeddings)  # cosines
```

`truncate_dim` may be {", ".join(map(str, self._dims))} (or left out: {self._dims[-1]}).
{self._classes()} imported from the installed package (`pip install 'semantic-zoom[export]'`); no code lies in this
folder, but sentence-transformers asks for `trust_remote_code=True` before it imports any class that is not its own.
Without granting that:

```python
from pipeline.export.loading import load_model

model = load_model("{self.card_name}", truncate_dim={first})
```

A prefix is the truncated vector, normalised: with a `truncate_dim` given to `encode` instead, or with vectors cut
elsewhere, pass `normalize_embeddings=True` or compare by cosine.

The head alone, on features of the backbone:

```python
from heads import load

head = load("{self.card_name}/2_Head")
head.embed(features, dim={first})  # features [n, {self.run.record["features"]["hidden_size"]}], as pooled
```"""

    def _classes(self) -> str:
        if self.run.record["features"]["compute_dtype"] == "float32":
            return f"Its class `{HEAD}` is"
        return f"Its classes `{HEAD}` and `{PACKED}` are"

    def _table(self) -> str:
        lines = ["## Accuracy", "", "k = 5 nearest neighbours by cosine, in % with 95 % intervals over texts."]
        for score in self.scores:
            names = self.run.record["levels"]
            lines += [
                "",
                f"{_TITLES[score['protocol']]} ({score['queries']:,} queries, {score['gallery']:,} to find them in):",
                "",
                "| dims | " + " | ".join(names) + " |",
                "|---|" + "---|" * len(names),
            ]
            lines += [
                f"| {prefix['dim']} | " + " | ".join(_cell(level) for level in prefix["levels"]) + " |"
                for prefix in score["prefixes"]
            ]
        return "\n".join(lines)

    def _making(self) -> str:
        return f"## Training\n\n```sh\n{self._commands()}\n```\n\nRun `{self.run.id}` of dataset " + (
            f"`{self.run.record['dataset']}`, best epoch {self.run.record['best_epoch']}; features "
            f"`{self.run.record['fingerprint'][:12]}`, computed in {self.run.record['features']['compute_dtype']}, "
            f"stored in {self.run.record['features']['store_dtype']}."
        )

    def _commands(self) -> str:
        record, source = self.run.record, self.source
        dataset = Path(source.source).name if Path(source.source).is_absolute() else source.source
        loading = source.options
        known, chosen = self._known(), record["hyperparameters"]
        backbone = known.name if known is not None else self._hub() or record["backbone"]
        defaults = hyperparameters(record["method"])
        settings = [
            word
            for name in ("epochs", "batch_size", "lr", "schedule")
            if chosen[name] != defaults[name]
            for word in (f"--{name.replace('_', '-')}", str(chosen[name]))
        ]
        embed = ["pipeline", "embed", dataset, "--backbone", backbone, *loading]
        embed += ["--dtype", record["features"]["compute_dtype"]]
        fit = ["pipeline", "fit-head", "--method", record["method"], "--seeds", str(record["seed"])]
        return shlex.join(embed) + "\n" + shlex.join([*fit, "--head", record["head"], *settings])

    def _parts(self) -> str:
        record, features = self.run.record, self.run.record["features"]
        end = f", end token {features['end_token']} appended" if features["end_token"] is not None else ""
        prompt = f", prompt `{record['prompt']}` before every text" if record["prompt"] else ""
        return "\n".join(
            [
                "## Parts",
                "",
                f"- `Transformer`: {record['backbone']}, at most {features['max_length']:,} tokens{end}{prompt}",
                f"- `Pooling`: {features['pooling']}, {features['hidden_size']:,} dimensions",
                f"- `ExportedHead`: L2-normalised features to {self._dims[-1]} dimensions, preset `{record['head']}`",
            ]
        )

    def _origin(self) -> str:
        stated = f"licence {self._licence()}" if self._licence() else "see its own card for the licence"
        where = f"[{self._hub()}](https://huggingface.co/{self._hub()})" if self._hub() else "a local checkpoint"
        clinc = "CLINC150 by Larson et al. (2019), CC BY 3.0" if self._dataset() == "clinc" else self._dataset()
        return f"## Sources\n\nBackbone: {where}, {stated}. Labels of the head: {clinc}. Made with semantic-zoom."


def _cell(level: Mapping[str, Any]) -> str:
    low, high = level["ci95"]
    return f"{level['accuracy'] * 100:.1f} [{low * 100:.1f}, {high * 100:.1f}]"
