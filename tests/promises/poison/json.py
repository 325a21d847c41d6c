"""A module named like one of the standard library. The standard library's must win."""

raise RuntimeError("the environment's json was imported instead of the standard library's")
