"""The path of a call: `pipeline` shows it, `check` and `results` are its ends, `explain` predicts its outcome."""
