"""Where tools come from: the installed `skills`."""
