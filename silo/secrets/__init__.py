"""The secrets of a call: where they are looked up (`sources`), for how long (`lease`), and `redaction` of results."""
