"""Prefix retrieval: search by a short prefix, re-rank by the full vector; how good, how fast, how many bytes."""
