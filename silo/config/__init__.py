"""Configuration: one schema, one loader, and the folder that it lives in. Nothing below `silo.config` reads any of it."""
