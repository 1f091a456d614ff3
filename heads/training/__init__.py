"""Training steps: inputs, sampling, losses, optimiser, validation."""
