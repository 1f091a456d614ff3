"""Texts to packed batches: tokens, prefix tries, attention masks by blocks."""
