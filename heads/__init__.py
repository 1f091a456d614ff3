"""Features and labels to heads: modules, losses, methods, the fit loop, checkpoints."""
