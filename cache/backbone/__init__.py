"""Which encoder it is: names, files, settings, and the fingerprint of everything that determines a feature."""
