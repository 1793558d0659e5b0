"""What is measured and how: ``python benchmarks COMMAND``, with the commands of ``__main__.py``; see README.md."""
