"""Where a call runs: which backend takes it, and what that backend gets to run."""
