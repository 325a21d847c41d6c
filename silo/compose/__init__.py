"""Configuration becomes objects. Nothing here decides anything; `silo.runtime` and the command line call it."""
