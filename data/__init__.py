"""Texts and their label hierarchies: the datasets, their loaders, checks and splits. Knows no torch."""

from data.catalog import BUILT_IN, check, load
from data.checks import Finding
from data.dataset import Dataset
from data.description import Description
from data.errors import DataError
from data.hierarchy import Hierarchy
from data.own_files import read_texts
from data.summary import summarize

__all__ = [
    "BUILT_IN",
    "DataError",
    "Dataset",
    "Description",
    "Finding",
    "Hierarchy",
    "check",
    "load",
    "read_texts",
    "summarize",
]
