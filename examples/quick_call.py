"""Call skills from a Python program: with `async`, and without.

silo install jwt && silo install table && silo vault add JWT_KEY
python examples/quick_call.py            # find a tool, call it, show what it ran in
python examples/quick_call.py sales.csv  # the first rows of a table, without `async`
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from silo import File
from silo.errors import SiloError
from silo.runtime import Runtime, SyncRuntime


async def sign(silo: Runtime, subject: str) -> str:
    """Find the tool that signs tokens, call it, and return the token; print where and how fast it ran."""
    found = await silo.search("sign a token", limit=5)
    print("found:", ", ".join(match.tool.id for match in found))
    result = await silo.call("jwt.sign", {"claims": {"sub": subject}})
    if result.is_error:
        raise SystemExit(result.text)
    print(f"ran in: {result.isolation}, kernel {result.guest.get('kernel', 'unknown')}, {result.timing['total']:.3f} s")
    return str(result.data["token"])


def first_rows(silo: SyncRuntime, path: Path, limit: int = 5) -> list[dict[str, Any]]:
    """Return the first rows of a table file. The guest gets a copy of this file and sees no others."""
    result = silo.call("table.query", {"data": File.from_path(path), "sql": "FROM data", "limit": limit})
    if result.is_error:
        raise SystemExit(result.text)
    return list(result.data["rows"])


async def _sign() -> None:
    async with Runtime() as silo:
        print(await sign(silo, "42"))


def main(arguments: list[str]) -> int:
    """Run one of the two examples. If silo fails, print its error and what to do next."""
    try:
        if arguments:
            with SyncRuntime() as silo:
                for row in first_rows(silo, Path(arguments[0])):
                    print(row)
        else:
            asyncio.run(_sign())
    except SiloError as error:
        print(f"{error.message} [{error.code}]\n{error.hint}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
