"""A trained head for use elsewhere: sentence-transformers, Parquet, FAISS."""
