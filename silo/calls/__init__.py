"""The path of a call: `pipeline` shows it, `check` and `results` are its ends, `explain` says where one would lead."""
