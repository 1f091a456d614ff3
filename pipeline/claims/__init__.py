"""The published claims, what is measured here, and the verdicts."""
