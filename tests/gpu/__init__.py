"""The tests for a machine with a GPU, and ``check.py``, which runs and reports them: ``make gpu-check``."""
