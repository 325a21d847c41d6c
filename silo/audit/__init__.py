"""The audit log (`log`), what is recorded of one call (`trail`), and what the records come to (`summary`)."""
