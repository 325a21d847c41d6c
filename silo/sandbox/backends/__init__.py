"""The backends: one package each, all of which implement `silo.sandbox.base.Backend`."""
