"""The path of a call, in `pipeline`, and its results. The only way in which a tool runs."""
