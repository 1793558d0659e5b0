"""The functions, transforms and values that a user calls."""
