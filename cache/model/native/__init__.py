"""Architectures that run without transformers' layers: Qwen3, Qwen2, Llama, Mistral and BERT."""
