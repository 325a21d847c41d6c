"""The command line: it parses, calls `silo.runtime`, and prints. It decides nothing about calls, skills or secrets."""
