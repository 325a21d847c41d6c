"""JSON and JSON Schema: checking values (`checker`), the arguments of a call, and the files among them."""
