"""Named like a part of the standard library, which must win."""

raise RuntimeError("the environment's json was imported instead of the standard library's")
