"""Texts and their label hierarchies: the datasets, their loaders, checks and splits. Knows no torch."""
