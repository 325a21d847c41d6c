"""Finding tools: what is installed, searching it, and learning from the calls that follow a search."""
