"""The backends: one module each, all with the shape of `silo.sandbox.base.Backend`."""
