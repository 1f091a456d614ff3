"""Packed batches to features: the encoder on one device."""
