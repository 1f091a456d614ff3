"""Texts to features: the frozen backbone, packed batches, the HDF5 feature store. Knows no labels."""
