"""How MCP messages reach this process: standard input and output."""
