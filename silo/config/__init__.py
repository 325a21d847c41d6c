"""Configuration: one schema, one loader, and the folder that it lives in. No package below this one reads it."""
