"""What `silo bench` measures, one module for each subcommand. Speed targets are benchmarks here, never timed tests."""
