# /// script
# requires-python = ">=3.11"
# dependencies = ["httpx>=0.28,<1", "pydantic>=2.12,<3"]
#
# [tool.silo]
# namespace = "bench_httpx_pydantic"
# ///
"""The skill that `silo bench call` measures: it imports httpx and pydantic, as many a real one does, and validates a model.

The same script runs bare, which is what silo is compared with: `uv run --script skill.py greet --name x`. Bare, the script has
an environment of its own without silo, and does without it: that is the fastest that it can be.
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
    """Where a greeting would be sent; nothing is sent."""

    host: str = Field(min_length=1, max_length=253)
    path: str = "/"


class Greeting(BaseModel):
    """What the tool returns, once it was validated."""

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
    """Validate once, so that a call does not pay for the first time."""
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
