# /// script
# requires-python = ">=3.11"
# dependencies = ["httpx>=0.28,<1", "pydantic>=2.12,<3"]
#
# [tool.silo]
# namespace = "bench_httpx_pydantic"
# ///
"""The skill that `silo bench call` measures: like many real ones, it imports httpx and pydantic and validates a model.

silo is compared with the same script run bare: `uv run --script skill.py greet --name x`. The bare script has its own
environment without silo, and doesn't need it; it can't run faster than that.
"""

import argparse
import json
from typing import Any

import httpx
from pydantic import BaseModel, Field

try:
    from silo import Skill
except ImportError:
    Skill = None  # type: ignore[assignment, misc]


class Address(BaseModel):
    """An address to send a greeting to; nothing is sent."""

    host: str = Field(min_length=1, max_length=253)
    path: str = "/"


class Greeting(BaseModel):
    """What the tool returns, after validation."""

    name: str = Field(min_length=1, max_length=100)
    text: str
    address: Address
    client: str


def greet(name: str) -> dict[str, Any]:
    """Greet somebody, through a validated model.

    Args:
        name: whom to greet, 1 to 100 characters.
    """
    url = httpx.URL("https://greetings.example").join(f"/to/{len(name)}")
    greeting = Greeting.model_validate(
        {
            "name": name,
            "text": f"Hello, {name}!",
            "address": {"host": url.host, "path": url.path},
            "client": f"httpx {httpx.__version__}",
        }
    )
    return greeting.model_dump(mode="json")


def warm() -> None:
    """Validate once, so that no call has to wait for what happens only the first time."""
    greet("warm")


if Skill is not None:
    skill = Skill("bench_httpx_pydantic")
    skill.tool()(greet)
    skill.warmup()(warm)


def main() -> None:
    """Run the tool bare and print its result as JSON."""
    parser = argparse.ArgumentParser(description=greet.__doc__)
    commands = parser.add_subparsers(required=True)
    commands.add_parser("greet").add_argument("--name", required=True)
    print(json.dumps(greet(parser.parse_args().name)))


if __name__ == "__main__":
    main()
