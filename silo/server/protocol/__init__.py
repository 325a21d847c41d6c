"""The MCP protocol: which request gets which answer, on any transport."""
