"""Find tools by name and by what they do. Pure: values in, values out; what is installed is `silo.catalog`'s to know."""
