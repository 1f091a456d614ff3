"""Checkpoints: a head's tensors by name, and a configuration that a person can read.

`head.safetensors` holds the weights as float32, `config.json` all else: architecture, hierarchy, and the caller's
record. Nothing is ever unpickled. A loaded head computes the same bits: the tensors go back to the places in the flat
vector from which they came.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from heads.errors import HeadsError
from heads.head import FractalHead, Labelling
from heads.presets import HeadShape

FORMAT = 1
WEIGHTS, CONFIG = "head.safetensors", "config.json"


def save(head: FractalHead, folder: str | Path, record: Mapping[str, Any]) -> None:
    """Write a head into a folder, which is made if need be.

    :param record: whatever the caller wants to find again as `head.record`; must be JSON.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.cpu().contiguous() for name, tensor in head.named().items()}, folder / WEIGHTS)
    config = {
        "format": FORMAT,
        "method": head.method,
        "preset": head.preset,
        "shape": asdict(head.shape),
        "supervised": list(head.labelling.supervised),
        "parents": [parents.tolist() for parents in head.labelling.parents],
        "record": dict(record),
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load(folder: Path) -> FractalHead:
    """Read a head, onto the CPU.

    :raises HeadsError: if a file is missing, damaged, of another format, or the two do not belong together.
    """
    folder = Path(folder)
    config = _config(folder / CONFIG)
    try:
        shape = HeadShape(**{**config["shape"], "classes": tuple(config["shape"]["classes"])})
        labelling = Labelling(
            tuple(np.array(parents, np.int64) for parents in config["parents"]), tuple(config["supervised"])
        )
        names = {"method": config["method"], "preset": config["preset"], "record": config["record"]}
        shape.tensors()  # a number that is none shows here
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(folder / CONFIG, f"lacks or garbles {error}") from error
    if not _fits(labelling, shape.classes):
        raise _damaged(folder / CONFIG, f"has parents or supervised that do not fit classes {list(shape.classes)}")
    return FractalHead(shape, _weights(folder / WEIGHTS, shape), labelling, **names)


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise _damaged(path, f"is not of format {FORMAT}")
    return config


def _fits(labelling: Labelling, classes: tuple[int, ...]) -> bool:
    """Whether each class has one entry among the parents, which is a class of the level above, or -1."""
    return (
        [parents.shape for parents in labelling.parents] == [(count,) for count in classes[1:]]
        and all(((p >= -1) & (p < above)).all() for p, above in zip(labelling.parents, classes, strict=False))
        and len(labelling.supervised) == len(classes)
    )


def _weights(path: Path, shape: HeadShape) -> torch.Tensor:
    """Put the tensors into one flat vector, checking names, shapes and dtypes."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise _damaged(path, str(error)) from error
    slots = {slot.name: slot for slot in shape.tensors()}
    if tensors.keys() != slots.keys():
        name = sorted(tensors.keys() ^ slots.keys())[0]
        raise _damaged(path, f"and {CONFIG} disagree about tensor {name}")
    flat = torch.empty(shape.parameters)
    for name, slot in slots.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != slot.shape or tensor.dtype != torch.float32:
            raise _damaged(path, f"holds {name} as {tensor.dtype} {tuple(tensor.shape)}, not float32 {slot.shape}")
        flat[slot.offset : slot.offset + slot.size] = tensor.flatten()
    return flat


def _damaged(path: Path, problem: str) -> HeadsError:
    one_line = " ".join(problem.split())
    return HeadsError(f"checkpoint {path}: {one_line}", "delete the folder and fit the head again")
