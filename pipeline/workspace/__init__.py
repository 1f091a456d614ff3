"""What lies below the artifacts folder: features, runs, and how they are found again."""
