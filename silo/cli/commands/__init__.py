"""One file for each verb, with a `register(app)` that `silo.cli.main` calls. What a command does is the library's."""
