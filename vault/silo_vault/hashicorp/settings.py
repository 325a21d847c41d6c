"""Settings: which server, how to log in, how long to wait. Pure: it has the paths of files and doesn't read them.

`settings_from` reads the variables that HashiCorp's own programs use. Values from `silo.toml` are its other arguments.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeGuard, get_args
from urllib.parse import urlsplit

from silo_vault.errors import KeyUnavailable, VaultLocked
from silo_vault.format import TRANSIT_NAME

AuthMethod = Literal["token", "approle", "kubernetes", "jwt"]

KUBERNETES_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
"""Where Kubernetes puts a pod's own token by default."""

VARIABLES: Mapping[str, str] = MappingProxyType(
    {
        "VAULT_ADDR": "address",
        "VAULT_TOKEN": "token",
        "VAULT_NAMESPACE": "namespace",
        "VAULT_CACERT": "ca_cert",
        "VAULT_CAPATH": "ca_path",
        "VAULT_CLIENT_CERT": "client_cert",
        "VAULT_CLIENT_KEY": "client_key",
        "VAULT_TLS_SERVER_NAME": "tls_server_name",
        "VAULT_SKIP_VERIFY": "skip_verify",
        "VAULT_CLIENT_TIMEOUT": "timeout_s",
        "VAULT_MAX_RETRIES": "max_retries",
    }
)
"""Each supported variable, and the field of `ServerSettings` that it sets."""

# One step of a path on the server. It has no '%', '?' or '#', so that the server can't read another path from it. A
# step of only dots could lead to a parent; `is_path` refuses it.
_STEP = r"[A-Za-z0-9_.@:=+~-]+"
_PATH = re.compile(f"{_STEP}(/{_STEP})*")
_DOTS = re.compile(r"(^|/)\.+(/|$)")
_MAX_PATH_CHARS = 1024
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h))+")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_UNIT_S = MappingProxyType({"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0})
_TRUE = frozenset({"1", "t", "T", "true", "True", "TRUE"})  # as Go's strconv.ParseBool, which HashiCorp's programs use
_FALSE = frozenset({"0", "f", "F", "false", "False", "FALSE"})


@dataclass(frozen=True)
class ServerSettings:
    """One server and one way to log in to it. The constructor checks all values.

    Attributes:
        address: `https://host:port`, perhaps with a path before `/v1`; `http://` for this machine only.
        namespace: sent as `X-Vault-Namespace`; empty for the root namespace.
        auth: how to log in.
        auth_mount: where the auth method is mounted; empty for the mount of the same name.
        token: for `token`; never shown. Without it `token_file` is read at each login.
        token_file: must belong to this user and have mode 0600.
        role: for `kubernetes` and `jwt`.
        role_id: for `approle`.
        secret_id_file: for `approle`; must not be open to all users.
        secret_id_wrapping_path: if set, the file has a response-wrapping token, which a request to this path must have
            made, e.g. `auth/approle/role/silo/secret-id`.
        remove_secret_id_file: delete the file after reading it. The secret-id then stays in memory for later logins.
        jwt: for `jwt`; never shown. Without it `jwt_file` is read at each login, because such files are replaced.
        jwt_file: for `jwt` and `kubernetes`.
        jwt_variable: the environment variable from which `settings_from` takes `jwt`.
        ca_cert: a file of PEM certificates to trust instead of the system's.
        ca_path: a folder of such files.
        client_cert: sent to the server, in PEM.
        client_key: of `client_cert`, if it is in another file; without a passphrase.
        tls_server_name: the name that the server's certificate must have, if it differs from that in `address`.
        skip_verify: don't check the certificate; for this machine only.
        timeout_s: how long one request may take, from resolving the name to the last byte.
        deadline_s: how long one use may take in total: login, renewal, requests and repeated attempts.
        max_retries: how often a request is sent again after a failure that may pass.
        transit_mount: where the transit engine is mounted.
        transit_key: the key in it that wraps the data key of a vault.
        kek_path: `mount/path#field` of a key of 32 bytes in a KV engine, in hex or base64; empty if there is none.
    """

    address: str
    namespace: str = ""
    auth: AuthMethod = "token"
    auth_mount: str = ""
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    role: str = ""
    role_id: str = ""
    secret_id_file: Path | None = None
    secret_id_wrapping_path: str = ""
    remove_secret_id_file: bool = False
    jwt: str | None = field(default=None, repr=False)
    jwt_file: Path | None = None
    jwt_variable: str = ""
    ca_cert: Path | None = None
    ca_path: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    tls_server_name: str = ""
    skip_verify: bool = False
    timeout_s: float = 10.0
    deadline_s: float = 30.0
    max_retries: int = 2
    transit_mount: str = "transit"
    transit_key: str = "silo"
    kek_path: str = ""

    def __post_init__(self) -> None:
        host, is_tls = _check_address(self.address)
        _check_transport(host, is_tls=is_tls, skip_verify=self.skip_verify)
        if self.auth not in get_args(AuthMethod):
            raise VaultLocked(
                f"there is no auth method {self.auth!r}", hint=f"use one of {', '.join(get_args(AuthMethod))}"
            )
        for name in ("namespace", "auth_mount", "secret_id_wrapping_path"):
            if (value := getattr(self, name)) and not is_path(value):
                raise VaultLocked(
                    f"{name} is not a path on a server",
                    hint="use steps of letters, digits and _.@:=+~- with '/' between them, but not at the start or end",
                )
        for name in ("transit_mount", "transit_key"):
            if not is_path(value := getattr(self, name)) or not TRANSIT_NAME.fullmatch(value):
                raise VaultLocked(f"{name} is malformed", hint="use letters, digits and _.- only, e.g. silo")
        for name in ("timeout_s", "deadline_s"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise VaultLocked(f"{name} is not a positive number of seconds", hint=f"e.g. {name} = 10")
        if not 0 <= self.max_retries <= 100:
            raise VaultLocked("max_retries is not between 0 and 100", hint="e.g. max_retries = 2")
        if self.client_key and not self.client_cert:
            raise VaultLocked("there is a client_key but no client_cert", hint="set both or neither")
        _check_auth(self)

    @property
    def login_mount(self) -> str:
        """Where the auth method is mounted, below `auth/`."""
        return self.auth_mount or self.auth


def settings_from(environ: Mapping[str, str], **overrides: Any) -> ServerSettings:  # noqa: ANN401 - they differ
    """Return the settings from the environment and these fields. A field that is not None overrides its variable.

    An empty variable counts as not set, as in HashiCorp's programs.

    Args:
        environ: `VARIABLES`, and `HOME` for `~/.vault-token`.
        overrides: fields of `ServerSettings`. A path may be text.

    Raises:
        KeyUnavailable: no address is given.
        VaultLocked: a setting is malformed or unsafe.
    """
    chosen = {name: value for name, value in overrides.items() if value is not None}
    values: dict[str, Any] = {}
    for variable, name in VARIABLES.items():
        if (text := environ.get(variable)) and name not in chosen:
            values[name] = _parsed(variable, name, text)
    values |= chosen
    if not values.get("address"):
        raise KeyUnavailable(
            "VAULT_ADDR is not set", hint="set it to the server's address, e.g. `export VAULT_ADDR=https://vault:8200`"
        )
    auth = values.get("auth", "token")
    if auth != "token":
        values["token"] = None  # not needed, so it is not kept in memory
    elif not values.get("token") and not values.get("token_file") and (home := environ.get("HOME")):
        values["token_file"] = Path(home, ".vault-token")
    if auth == "kubernetes":
        values.setdefault("jwt_file", KUBERNETES_TOKEN)
    if auth == "jwt" and values.get("jwt_variable") and not values.get("jwt"):
        values["jwt"] = environ.get(values["jwt_variable"]) or None
    for item in fields(ServerSettings):
        if str(item.type).startswith("Path") and isinstance(values.get(item.name), str):
            values[item.name] = Path(values[item.name])
    return ServerSettings(**values)


def is_path(text: object) -> TypeGuard[str]:
    """Whether this is a path below `/v1/` that the server receives unchanged."""
    return (
        isinstance(text, str)
        and len(text) <= _MAX_PATH_CHARS
        and _PATH.fullmatch(text) is not None
        and _DOTS.search(text) is None
    )


def is_loopback(host: str) -> bool:
    """Whether the host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _check_address(address: str) -> tuple[str, bool]:
    """Return the host, and whether the address uses TLS."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    is_plain_url = not (parts.username or parts.password or parts.query or parts.fragment or "@" in parts.netloc)
    path = parts.path.strip("/")
    if (
        parts.scheme not in ("http", "https")
        or not host
        or not _HOST.fullmatch(host)
        or port == 0
        or not is_plain_url
        or (path and not is_path(path))
    ):
        # The address is not quoted, because it may contain a password.
        raise VaultLocked(
            "the address of the server is malformed", hint="write it as https://HOST:PORT, e.g. https://vault:8200"
        )
    return host, parts.scheme == "https"


def _check_transport(host: str, *, is_tls: bool, skip_verify: bool) -> None:
    if is_loopback(host):
        return
    if not is_tls:
        raise VaultLocked(
            f"http://{host} would send keys and tokens unencrypted",
            hint="use https://, and VAULT_CACERT for a CA of your own",
        )
    if skip_verify:
        raise VaultLocked(
            f"VAULT_SKIP_VERIFY would let anyone impersonate {host}",
            hint="unset it, and set VAULT_CACERT to the server's CA",
        )


def _check_auth(settings: ServerSettings) -> None:
    missing = {
        "token": None
        if settings.token or settings.token_file
        else "a token: set VAULT_TOKEN, or write it to ~/.vault-token",
        "approle": None if settings.role_id and settings.secret_id_file else "role_id and secret_id_file",
        "kubernetes": None if settings.role and settings.jwt_file else "role and jwt_file",
        "jwt": None if settings.role and (settings.jwt or settings.jwt_file) else "role, and jwt_file or jwt_variable",
    }[settings.auth]
    if missing:
        raise VaultLocked(f"settings for the login by {settings.auth} are missing", hint=f"give {missing}")


def _parsed(variable: str, name: str, text: str) -> object:
    if name == "timeout_s":
        return _duration(variable, text)
    if name == "max_retries":
        if not re.fullmatch("[0-9]{1,3}", text):
            raise VaultLocked(f"{variable} is not a number", hint=f"e.g. `export {variable}=2`")
        return int(text)
    if name == "skip_verify":
        if text not in _TRUE | _FALSE:
            raise VaultLocked(f"{variable} is neither true nor false", hint=f"remove it with `unset {variable}`")
        return text in _TRUE
    return text.strip("/") if name == "namespace" else text


def _duration(variable: str, text: str) -> float:
    """Read `60`, `60s` or `1m30s`, like Go's time.ParseDuration and HashiCorp's parseutil."""
    if re.fullmatch("[0-9]{1,9}", text):
        return float(text)
    if not _DURATION.fullmatch(text):
        raise VaultLocked(f"{variable} is not a duration", hint=f"e.g. `export {variable}=30s`")
    return sum(float(number) * _UNIT_S[unit] for number, unit in _DURATION_PART.findall(text))
