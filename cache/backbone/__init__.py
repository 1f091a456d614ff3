"""Which encoder it is: names and sources, where its files are, and the content address of what decides a feature."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.lazy import importer

if TYPE_CHECKING:
    from cache.backbone.fingerprint import forget_hashes, identity, read_content, weight_files
    from cache.backbone.hub import cached, fetch_small_files, locate
    from cache.backbone.json_files import read_json
    from cache.backbone.options import READING, BackboneOptions, with_options
    from cache.backbone.quiet import quiet_transformers
    from cache.backbone.registry import BACKBONES, GIVEN, SERVED, Backbone, at_hand, is_causal, package_folder

__getattr__, __all__ = importer(
    __name__,
    {
        "cache.backbone.fingerprint": "forget_hashes identity read_content weight_files",
        "cache.backbone.hub": "cached fetch_small_files locate",
        "cache.backbone.json_files": "read_json",
        "cache.backbone.options": "READING BackboneOptions with_options",
        "cache.backbone.quiet": "quiet_transformers",
        "cache.backbone.registry": "BACKBONES GIVEN SERVED Backbone at_hand is_causal package_folder",
    },
)
