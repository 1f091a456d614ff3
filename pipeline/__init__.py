"""The `pipeline` command and its three stages: embed, fit, score."""
