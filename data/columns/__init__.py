"""Which columns hold texts, labels and splits, and what form the labels have."""
