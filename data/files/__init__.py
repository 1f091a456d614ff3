"""A user's own files: found, read, checked and turned into rows of texts and labels."""
