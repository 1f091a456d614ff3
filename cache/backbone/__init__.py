"""Which encoder it is: names and sources, where its files are, and the content address of what decides a feature."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.lazy import importer

if TYPE_CHECKING:
    from cache.backbone.fingerprint import identity, read_content, weight_files
    from cache.backbone.hub import fetch_small_files, is_cached, locate
    from cache.backbone.json_files import read_json
    from cache.backbone.registry import BACKBONES, Backbone, is_causal, package_folder
    from cache.backbone.tokenizer_files import quiet_transformers

__all__ = [
    "BACKBONES",
    "Backbone",
    "fetch_small_files",
    "identity",
    "is_cached",
    "is_causal",
    "locate",
    "package_folder",
    "quiet_transformers",
    "read_content",
    "read_json",
    "weight_files",
]
__getattr__ = importer(
    __name__,
    {
        "cache.backbone.fingerprint": (
            "identity",
            "read_content",
            "weight_files",
        ),
        "cache.backbone.hub": (
            "fetch_small_files",
            "is_cached",
            "locate",
        ),
        "cache.backbone.json_files": ("read_json",),
        "cache.backbone.registry": (
            "BACKBONES",
            "Backbone",
            "is_causal",
            "package_folder",
        ),
        "cache.backbone.tokenizer_files": ("quiet_transformers",),
    },
)
