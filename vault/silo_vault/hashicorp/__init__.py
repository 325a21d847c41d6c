"""HashiCorp Vault and OpenBao: how to reach a server, log in to it and read its secrets.

The two speak one protocol, and what is said of one here holds for the other. That a server may hold the key of a vault of ours is
`silo_vault.keys.transit` and `silo_vault.keys.kv`. Importing this loads neither `hvac` nor `ssl`; the first request does.
"""

from silo_vault.hashicorp.kv_secrets import KvSecrets, Reference, parse_reference
from silo_vault.hashicorp.server import HashicorpServer
from silo_vault.hashicorp.settings import VARIABLES, ServerSettings, settings_from

__all__ = [
    "VARIABLES",
    "HashicorpServer",
    "KvSecrets",
    "Reference",
    "ServerSettings",
    "parse_reference",
    "settings_from",
]
