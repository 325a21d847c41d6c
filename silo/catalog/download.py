"""Download one file from a package index. uv has no command that downloads a source distribution without building it.

Proxies, certificates and credentials come from the same variables as for uv. A keyring and credentials in `uv.toml` are
not asked.
"""

from __future__ import annotations

import base64
import netrc
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Final
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import Request

from anyio import to_thread

from silo.errors import DependencyUnavailable
from silo.sizes import MIB

MAX_DOWNLOAD_BYTES: Final = 256 * MIB
_TIMEOUT_S: Final = 30.0
_DEADLINE_S: Final = 900.0


async def download(url: str, target: Path, environ: Mapping[str, str], *, max_bytes: int = MAX_DOWNLOAD_BYTES) -> None:
    """Write what an address serves into a new file. The caller checks its hash.

    Raises:
        DependencyUnavailable: it can't be had, takes too long, or is larger than `max_bytes`.
    """
    try:
        await to_thread.run_sync(_download, url, target, environ, max_bytes, abandon_on_cancel=True)
    except (OSError, ValueError, HTTPException) as error:  # urllib's errors are OSErrors
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        reason = str(getattr(error, "reason", error))
        raise DependencyUnavailable(
            f"can't download {urlsplit(url).path.rsplit('/', 1)[-1]} from {urlsplit(url).hostname}: {reason[:300]}",
            hint="is there a network? silo takes proxies and credentials from the same variables as uv, and from "
            "~/.netrc",
        ) from error


class _WebOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirects to other web addresses only."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        """As its base, which allows FTP as well."""
        if urlsplit(newurl).scheme not in {"http", "https"}:
            fp.close()
            raise urllib.error.URLError(f"redirected to {newurl[:100]}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(url: str, target: Path, environ: Mapping[str, str], max_bytes: int) -> None:
    context = ssl.create_default_context(
        cafile=environ.get("SSL_CERT_FILE") or None, capath=environ.get("SSL_CERT_DIR") or None
    )
    proxies = {
        scheme: proxy
        for scheme in ("http", "https")
        if (proxy := proxy_for(scheme, urlsplit(url).hostname or "", environ))
    }
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler(proxies), urllib.request.HTTPSHandler(context=context), _WebOnly()
    )
    request = Request(url)  # noqa: S310 - the caller passes web addresses only
    if (found := credentials(urlsplit(url), environ)) is not None:
        # Not for the address of a redirect.
        encoded = base64.b64encode(":".join(found).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {encoded}")
    end = time.monotonic() + _DEADLINE_S
    size = 0
    with opener.open(request, timeout=_TIMEOUT_S) as response, target.open("xb") as file:
        while chunk := response.read(1 * MIB):
            size += len(chunk)
            if size > max_bytes:
                raise ValueError(f"it has more than {max_bytes} bytes")
            if time.monotonic() > end:
                raise TimeoutError(f"it took more than {_DEADLINE_S:g} s")
            file.write(chunk)


def credentials(url: SplitResult, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Return user and password for an address: those of an index on the same host, else those of `~/.netrc`."""
    for name, index in _indexes(environ):
        if (index.scheme, index.hostname, index.port) != (url.scheme, url.hostname, url.port):
            continue
        variable = f"UV_INDEX_{name.upper().replace('-', '_').replace('.', '_')}"
        user = environ.get(f"{variable}_USERNAME", unquote(index.username or "")) if name else index.username or ""
        password = environ.get(f"{variable}_PASSWORD", unquote(index.password or "")) if name else index.password or ""
        if user or password:
            return (user, password) if name else (unquote(user), unquote(password))
    path = Path(environ.get("NETRC") or Path(environ.get("HOME", "/nonexistent")) / ".netrc")
    try:
        entry = netrc.netrc(path).authenticators(url.hostname or "")
    except (OSError, netrc.NetrcParseError):
        return None
    return None if entry is None else (entry[0], entry[2] or "")


def _indexes(environ: Mapping[str, str]) -> Iterator[tuple[str, SplitResult]]:
    """Yield name (or nothing) and address of each index that variables name, as uv reads them."""
    for variable in ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL"):
        for text in environ.get(variable, "").split():
            name, separator, address = text.partition("=")
            is_named = separator == "=" and "/" not in name
            yield (name, urlsplit(address)) if is_named else ("", urlsplit(text))


def proxy_for(scheme: str, host: str, environ: Mapping[str, str]) -> str:
    """Return the proxy for a host, or nothing if `NO_PROXY` names the host or a domain that it is in."""
    without = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    for part in without.split(","):
        name = part.strip().lstrip(".").lower()
        if name and (name == "*" or host.lower() == name or host.lower().endswith(f".{name}")):
            return ""
    names = (f"{scheme}_proxy", f"{scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY")
    return next((environ[name] for name in names if environ.get(name)), "")
