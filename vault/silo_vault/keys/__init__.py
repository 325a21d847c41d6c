"""Providers of the keys that open a vault, one module for each place that keeps keys."""
