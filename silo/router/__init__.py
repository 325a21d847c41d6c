"""Find tools by name and by meaning. Pure; `silo.catalog` knows which skills are installed."""
