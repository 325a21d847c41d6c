"""What `silo bench` measures: one module for each subcommand. A speed target is a benchmark here, never a timed test."""
