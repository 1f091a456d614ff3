"""What training, encoding, searching and storing cost: counted from shapes, measured where this machine can."""
