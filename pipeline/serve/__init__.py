"""A run behind the OpenAI embeddings protocol."""
