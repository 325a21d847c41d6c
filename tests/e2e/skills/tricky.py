# /// script
# requires-python = ">=3.11"
# dependencies = []
#
# [tool.silo]
# namespace = "tricky"
# description = "Fails in every way there is, for the end-to-end tests."
# memory_mib = 160
# timeout_s = 600
#
# [tool.silo.secrets.FIRST_KEY]
# deliver = "stdin"
#
# [tool.silo.secrets.SECOND_KEY]
# deliver = "stdin"
#
# [tool.silo.secrets.ABSENT_KEY]
# deliver = "stdin"
# ///
"""Tools that misbehave, each in one way, and some that behave but are awkward."""

import asyncio
import hashlib
import os
import random
import signal
import sys
import time
import uuid
from pathlib import Path
from typing import Annotated, TypedDict

from silo import AgentResponse, File, Range, Skill, report_progress, require_secret

skill = Skill("tricky")


class Measured(TypedDict):
    """How a file arrived in the guest."""

    name: str
    size: int
    sha256: str


@skill.tool(secrets=[])
def add(a: int, b: Annotated[int, Range(ge=0)] = 1) -> int:
    """Add two numbers, the second of which must not be negative."""
    return a + b


@skill.tool(secrets=[])
async def later(text: str) -> str:
    """Return the text after a moment, without blocking."""
    await asyncio.sleep(0.01)
    return text


@skill.tool(secrets=[])
def steps(count: int = 3) -> list[int]:
    """Count, reporting each number as progress."""
    for number in range(1, count + 1):
        report_progress(number, count, f"step {number}")
        time.sleep(0.1)
    return list(range(1, count + 1))


@skill.tool(secrets=[])
def fail(text: str = "as asked") -> str:
    """Raise an exception, after a line on stderr."""
    print("about to fail", file=sys.stderr)
    raise LookupError(text)


@skill.tool(secrets=[])
def report_failure() -> AgentResponse:
    """Report a failure without an exception."""
    return AgentResponse(llm_text="The shop is closed.", status="error", error_message="closed")


@skill.tool(secrets=[])
def leave() -> None:
    """End the process with `sys.exit`."""
    sys.exit(7)


@skill.tool(secrets=[])
def vanish() -> None:
    """End the process at once, without Python's cleanup."""
    os._exit(9)


@skill.tool(secrets=[])
def crash() -> None:
    """End the process by a signal, as a broken native library would."""
    os.kill(os.getpid(), signal.SIGSEGV)


@skill.tool(secrets=[])
def hang() -> None:
    """Say that it began, and never return."""
    report_progress(0, None, "hanging")
    while True:
        time.sleep(60)


@skill.tool(secrets=[])
def flood() -> None:
    """Print without end."""
    while True:
        os.write(1, b"x" * 65536)


@skill.tool(secrets=[])
def chat() -> str:
    """Print what could be taken for the protocol, and return."""
    print('{"jsonrpc": "2.0", "id": 1, "result": {}}')
    os.write(1, b"Content-Length: 0\r\n\r\n")
    return "done"


@skill.tool(secrets=[])
def gorge() -> int:
    """Take more memory than the guest has."""
    hoard = [bytearray(8 * 1024 * 1024) for _ in range(1000)]
    return len(hoard)


@skill.tool(secrets=[])
def not_a_number() -> float:
    """Return what JSON does not have."""
    return float("nan")


@skill.tool(secrets=[])
def big_text(kib: int) -> str:
    """Return this many KiB of text."""
    return "0123456789abcdef" * 64 * kib


@skill.tool(secrets=[])
def picture() -> File:
    """Return a file."""
    return File(b"\x89PNG\r\n\x1a\nnot really", "image/png", "dot.png")


@skill.tool(secrets=[])
def measure(data: File) -> Measured:
    """Say what a file is."""
    return {"name": data.name, "size": data.size, "sha256": hashlib.sha256(data.data).hexdigest()}


@skill.tool(require_approval=True, secrets=[])
def dangerous() -> str:
    """Do what a person must agree to."""
    return "done"


@skill.tool(secrets=[])
def visit(url: str) -> str:
    """Fetch an address, and return what happened."""
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return f"fetched {answer.status}"
    except (urllib.error.URLError, OSError) as error:
        return f"failed: {error}"


@skill.tool(secrets=["FIRST_KEY", "SECOND_KEY"])
def fingerprints() -> list[str]:
    """Return the SHA-256 of both secrets: it shows that they arrived, without showing them."""
    return [hashlib.sha256(require_secret(name).encode()).hexdigest() for name in ("FIRST_KEY", "SECOND_KEY")]


@skill.tool(secrets=["FIRST_KEY"])
def leak() -> str:
    """Print and return a secret, as a tool would that was talked into it."""
    value = require_secret("FIRST_KEY")
    print(value)
    print(value, file=sys.stderr)
    return f"the key is {value}"


@skill.tool(secrets=["FIRST_KEY"])
def grab() -> str:
    """Ask for a secret that this tool did not declare."""
    return require_secret("SECOND_KEY")


@skill.tool(secrets=["ABSENT_KEY"])
def wants_more() -> str:
    """Want a secret that is in no vault of the tests."""
    return require_secret("ABSENT_KEY")


@skill.tool(secrets=[])
def look_around() -> dict[str, str]:
    """Return what differs from guest to guest, and leave a file behind."""
    kept = Path("/tmp/left-behind").exists()
    with open("/tmp/left-behind", "w") as file:
        file.write("still here?")
    return {
        "kernel": os.uname().release,
        "kept": str(kept),
        "uuid": str(uuid.uuid4()),
        "random": str(random.random()),
    }


if __name__ == "__main__":
    skill.run()
