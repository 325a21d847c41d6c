"""Secrets of a call: where they are looked up (`sources`), for how long (`lease`), and taking them out of results (`redaction`)."""
