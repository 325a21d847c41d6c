"""HashiCorp Vault and OpenBao: how to reach a server, log in to it and read its secrets.

Both speak the same protocol, so statements here about one apply to the other. `silo_vault.keys.transit` and
`silo_vault.keys.kv` use a server to keep the key of a vault. The first request loads `hvac` and `ssl`; importing this
package does not.
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
