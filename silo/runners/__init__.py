"""Where a call runs: which backend takes it, what that backend gets to run, and the running itself."""
