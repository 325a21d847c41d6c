"""One file for each command, with a `register(app)` that `silo.cli.app` calls. The work is done by the library."""
