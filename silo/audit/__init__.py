"""The audit log (`log`), the records of one call (`trail`), and figures over all records (`summary`)."""
