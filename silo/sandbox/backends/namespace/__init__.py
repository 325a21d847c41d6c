"""Guests that share the host's kernel, under bubblewrap."""
