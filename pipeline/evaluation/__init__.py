"""How good an embedding is: protocols, predictions, metrics, statistics, comparisons."""
