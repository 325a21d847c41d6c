"""Run uv as a child process, with a limited environment and a deadline, and turn its failures into errors.

`silo.catalog.lock`, `silo.catalog.environment` and `silo.catalog.interpreter` choose uv's commands.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import uv as uv_package

from silo.catalog.process import ProcessResult, TooMuchWritten, run_to_end
from silo.errors import DependencyUnavailable
from silo.sizes import MIB

_PASSED = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TMPDIR", "TERM"),
        *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "XDG_DATA_HOME"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "SSL_CLIENT_CERT", "NETRC", "PIP_CERT", "PIP_PROXY"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
        *("UV_CONFIG_FILE", "UV_NO_CONFIG", "UV_CACHE_DIR", "UV_NO_CACHE", "UV_OFFLINE", "UV_CREDENTIALS_DIR"),
        *("UV_FIND_LINKS", "UV_NO_INDEX", "UV_KEYRING_PROVIDER", "UV_INSECURE_HOST"),
        *("UV_NATIVE_TLS", "UV_SYSTEM_CERTS", "UV_EXCLUDE_NEWER", "UV_REQUEST_TIMEOUT"),
        *("UV_PYTHON_INSTALL_DIR", "UV_PYTHON_PREFERENCE"),
    }
)
_CACHE = ("UV_CACHE_DIR", "UV_NO_CACHE")
_PASSED_PREFIXES = ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX", "UV_HTTP_", "UV_CONCURRENT_")
# An allow-list: other variables of uv change what a command does (UV_FROZEN, UV_NO_VERIFY_HASHES, UV_CONSTRAINT,
# UV_COMPILE_BYTECODE starts a python in the target), PYTHON* would reach the interpreters that uv starts, and uv must
# not see silo's own variables (SILO_MASTER_KEY).


_WRITES: Final = 3
"""How often uv may write the packages: the downloads, which are smaller, then its cache, and the copy for the skill."""


@dataclass(frozen=True)
class Uv:
    """The uv that came with silo, with the user's own settings of package indexes, proxies and certificates.

    Attributes:
        environ: the environment of silo's process; uv gets a part of it.
        binary: uv's executable; by default that of the `uv` package.
        max_unpacked_bytes: how large the packages of one skill may be when unpacked (`install.max_mib`).
    """

    environ: Mapping[str, str]
    binary: str = ""
    max_unpacked_bytes: int = 2048 * MIB

    async def run(
        self, arguments: Sequence[str], *, stdin: bytes = b"", timeout_s: float, settings: bool = True
    ) -> ProcessResult:
        """Run uv to its end in `/`, so that no `uv.toml`, `pyproject.toml` or `.venv` beside a skill is found.

        Args:
            arguments: the arguments of `uv`, with absolute paths.
            stdin: uv's STDIN.
            timeout_s: uv and its children are killed after this time.
            settings: whether uv sees the user's settings; without them, it is offline as well.

        Raises:
            DependencyUnavailable: uv can't be started, took too long, or wrote too much: what it was unpacking in its
                cache is deleted. The caller handles failures of uv itself.
        """
        environ = {
            name: value
            for name, value in self.environ.items()
            if (name in _PASSED or name.startswith(_PASSED_PREFIXES))
            and (settings or name in _CACHE or not name.startswith("UV_"))
        }
        flags = ["--no-progress", "--color=never", "--no-python-downloads"]
        if not settings:
            flags += ["--no-config", "--offline"]
        command = [self.binary or uv_package.find_uv_bin(), *flags, *arguments]
        try:
            with anyio.fail_after(timeout_s):
                return await run_to_end(
                    command, environ=environ, stdin=stdin, max_written_bytes=_WRITES * self.max_unpacked_bytes
                )
        except TooMuchWritten as error:
            # A killed uv leaves what it was unpacking, and its next runs don't know of it.
            for folder in {found for path in error.open_files if (found := _unpacking(path)) is not None}:
                await anyio.to_thread.run_sync(shutil.rmtree, folder, True)
            raise too_large(self.max_unpacked_bytes, doing="can't unpack the packages") from error
        except TimeoutError as error:
            raise DependencyUnavailable(
                f"uv did not finish within {timeout_s:g} s",
                hint="is the package index slow? try again, or look at a mirror",
            ) from error
        except OSError as error:
            raise DependencyUnavailable(
                f"uv can't be started: {error.strerror}", hint="reinstall silo; uv is one of its dependencies"
            ) from error


def too_large(max_bytes: int, *, doing: str) -> DependencyUnavailable:
    """Return the error for packages that are larger than they may be.

    Args:
        max_bytes: the limit.
        doing: the start of the message.
    """
    return DependencyUnavailable(
        f"{doing}: they have more than {max_bytes // MIB:,} MiB when unpacked",
        hint="if you expect that, set install.max_mib in silo.toml to more; else a package may be hostile",
    )


def _unpacking(path: Path) -> Path | None:
    """The folder in uv's cache in which an archive is being unpacked, if `path` lies in one (`.tmpXXXXXX`)."""
    for folder in path.parents:
        if re.fullmatch(r"\.tmp\w{6}", folder.name) and (folder.parent / "CACHEDIR.TAG").is_file():
            return folder
    return None


def failure(done: ProcessResult, *, doing: str) -> DependencyUnavailable:
    """Return the error for a failed run of uv: the lines of its stderr with the reason, and a hint.

    Args:
        done: the run of uv.
        doing: the start of the message, e.g. `can't resolve the dependencies of 'jwt'`.
    """
    lines = [line.strip() for line in done.stderr.splitlines()]
    told = [
        re.sub(r"^(error:|cause:|[^ -~]+\s)\s*", "", line)
        for line in lines
        if line and not re.match(r"(Using|Resolved|Prepared|Downloading|warning:|hint:)", line)
    ]
    reason = without_credentials("; ".join(told[:1] + told[1:][-2:])) or f"uv exited with status {done.status}"
    return DependencyUnavailable(f"{doing}: {reason[:800]}", hint=_hint(done.stderr))


def _hint(stderr: str) -> str:
    # uv has no error codes, so this matches its messages; the last line is for all others.
    if "Hash mismatch" in stderr:
        return "the index serves another file than the locked one: don't install it; ask the index's operator"
    if re.search(r"building from source is disabled|no usable wheels|--no-build|no wheels with a matching", stderr):
        return "it has no wheel for this machine; `--allow-builds` builds it from source, in a sandbox, and asks first"
    if "was not found in the package registry" in stderr or "was not found in the provided package locations" in stderr:
        return "is the name right? look for it on the package index, and correct 'dependencies' in the header"
    if re.search(
        r"not found in the cache|dns error|client error|error sending request|Network connectivity is disabled"
        r"|timed out",
        stderr,
    ):
        return "is there a network? a mirror is set with UV_DEFAULT_INDEX or in uv.toml, a proxy with HTTPS_PROXY"
    if "No solution found" in stderr:
        return "loosen 'dependencies' or 'requires-python' in the header"
    return "`uv lock --script` on the script tells more"


def without_credentials(text: str) -> str:
    """Return a text without user and password in its addresses."""
    return re.sub(r"(?<=://)[^/\s@]+@", "", text)
