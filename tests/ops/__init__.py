"""What comes out of an op, on every backend."""
