"""The feature store: immutable HDF5 shards, looked up by key, read as memory."""
