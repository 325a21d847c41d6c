"""The one path of a call (`call`), the one path of an installation (`install`), and what stands along them.

`arguments` and `inputs` check what comes in, `approvals` asks, `secrets` leases, `redact` cleans what comes out, `audit` records.
Nothing here reads configuration or the environment; `silo.runtime` hands everything in.
"""
