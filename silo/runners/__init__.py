"""Where a call runs: choosing the backend, finding what it runs for a skill, and running the call."""
