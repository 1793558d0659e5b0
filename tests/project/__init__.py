"""What stands around the package: build, command line, README, benchmarks."""
