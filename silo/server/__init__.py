"""The MCP edge: silo's tools for agents, over stdio. The only importer of `mcp`.

`protocol` answers requests, `transports` run it as a process, and `clients` writes the entry for a client's
configuration. A call goes through `engine.Engine` to `silo.calls`, which decides whether the tool may run.
"""
