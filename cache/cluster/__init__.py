"""Beyond one machine: Ray reads and distributes; what computes a feature is the code that computes it anywhere.

Nothing here is imported before `--engine ray` asks for it, so that Ray stays an extra.
"""
