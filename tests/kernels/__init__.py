"""The compiled code: its maths, its execution without a GPU, its machine code."""
