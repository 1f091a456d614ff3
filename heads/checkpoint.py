"""Heads on disk: tensors by name, and a configuration that a person can read.

`head.safetensors` holds the weights as float32, `config.json` all else: architecture, hierarchy, and the caller's
record, with a digest over both files, so that a changed bit is found when the head is loaded. Nothing is ever
unpickled. A loaded head computes the same bits: the tensors go back to the places in the flat vector from which they
came.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as tensor_bytes
from torch import Tensor

from heads.checkpoint_files import CONFIG, FORMAT, WEIGHTS, check_digest, damaged, digest_of, file_bytes, read_config
from heads.errors import HeadsError
from heads.head import FractalHead, Labelling
from heads.network import named
from heads.presets import HeadShape

_CENTRE, _SCALE = "input.centre", "input.scale"


def save(head: FractalHead, folder: str | Path, record: Mapping[str, Any]) -> None:
    """Write a head into a folder, which is made if need be.

    :param record: whatever the caller wants to find again as `head.record`; must be JSON.
    :raises HeadsError: if a file cannot be written, or a value of the record or a label is no JSON.
    """
    folder = Path(folder)
    tensors = {name: tensor.float().cpu().contiguous() for name, tensor in named(head.weights, head.shape).items()}
    if head.centre is not None:
        tensors[_CENTRE] = head.centre.float().cpu().contiguous()
        tensors[_SCALE] = torch.tensor([head.scale], dtype=torch.float32)
    weights = tensor_bytes(tensors)
    config = {
        "format": FORMAT,
        "method": head.method,
        "preset": head.preset,
        "shape": {one.name: getattr(head.shape, one.name) for one in fields(head.shape) if one.init},
        "supervised": list(head.labelling.supervised),
        "parents": [parents.tolist() for parents in head.labelling.parents],
        "names": None if head.labelling.names is None else [list(names) for names in head.labelling.names],
        "record": dict(record),
    }
    try:
        config["digest"] = digest_of(weights, config)
        text = json.dumps(config, indent=1, ensure_ascii=False) + "\n"
    except (TypeError, ValueError) as error:
        raise HeadsError(
            f"the record or a label is no JSON: {error}", "use strings, numbers, lists and dicts"
        ) from error
    path = folder / WEIGHTS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(weights)
        path = folder / CONFIG
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise HeadsError(
            f"{path} cannot be written: {error.strerror or error}", "make room or name another folder"
        ) from error


def load(folder: str | Path) -> FractalHead:
    """Read a head, onto the CPU.

    A head without a digest, as all of format 1 are, is read, and a log line says that it cannot be checked.

    :raises HeadsError: if a file is missing, damaged, of a newer format, or the two do not belong together.
    """
    folder = Path(folder)
    config = read_config(folder / CONFIG)
    weights = file_bytes(folder / WEIGHTS)
    try:
        shape = HeadShape(**{**config["shape"], "classes": tuple(config["shape"]["classes"])})
        names = config.get("names")
        labelling = Labelling(
            tuple(np.array(parents, np.int64) for parents in config["parents"]),
            tuple(config["supervised"]),
            None if names is None else tuple(tuple(level) for level in names),
        )
        about = {"method": config["method"], "preset": config["preset"], "record": config["record"]}
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(folder / CONFIG, f"lacks or garbles {error}") from error
    if not _fits(labelling, shape.classes):
        raise damaged(folder / CONFIG, f"has parents or supervised that do not fit classes {list(shape.classes)}")
    flat, centre, scale = _weights(folder / WEIGHTS, weights, shape)
    check_digest(folder, config, weights)
    return FractalHead(shape, flat, labelling, centre=centre, scale=scale, **about)


def _fits(labelling: Labelling, classes: tuple[int, ...]) -> bool:
    """Whether each class has one entry among the parents, which is a class of the level above, or -1."""
    return (
        [parents.shape for parents in labelling.parents] == [(count,) for count in classes[1:]]
        and all(((p >= -1) & (p < above)).all() for p, above in zip(labelling.parents, classes, strict=False))
        and len(labelling.supervised) == len(classes)
        and (labelling.names is None or [len(level) for level in labelling.names] == list(classes))
    )


def _weights(path: Path, content: bytes, shape: HeadShape) -> tuple[Tensor, Tensor | None, float]:
    """Put the tensors into one flat vector, checking names, shapes and dtypes; and the centre and scale of features."""
    try:
        tensors = load_tensors(content)
    except SafetensorError as error:
        raise damaged(path, str(error)) from error
    wanted = {slot.name: slot.shape for slot in shape.tensors}
    if _CENTRE in tensors:
        wanted |= {_CENTRE: (shape.inputs,), _SCALE: (1,)}
    if tensors.keys() != wanted.keys():
        name = sorted(tensors.keys() ^ wanted.keys())[0]
        raise damaged(path, f"and {CONFIG} disagree about tensor {name}")
    for name, dims in wanted.items():
        if tuple(tensors[name].shape) != dims or tensors[name].dtype != torch.float32:
            raise damaged(
                path, f"holds {name} as {tensors[name].dtype} {tuple(tensors[name].shape)}, not float32 {dims}"
            )
    flat = torch.empty(shape.parameters)
    for name, place in named(flat, shape).items():
        place.copy_(tensors[name])
    scale = float(tensors[_SCALE][0]) if _SCALE in tensors else 1.0
    return flat, tensors.get(_CENTRE), scale
