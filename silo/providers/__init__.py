"""Where tools come from: `skills`, which are installed here."""
