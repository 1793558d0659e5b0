"""The tests: values against independent oracles, on every backend that this machine has."""
