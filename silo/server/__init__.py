"""The MCP edge: silo's tools for agents, over stdio. The only importer of `mcp`.

`app` answers requests, `stdio` runs it as a process, `clients` writes the entry for a client's configuration. What a call does
is `silo.pipeline`'s, reached through `engine.Engine`; nothing here decides whether a tool may run.
"""
