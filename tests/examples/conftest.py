"""Loads the examples as modules, and gives them a runtime with recorded answers that starts no guests."""

import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from silo.errors import ArgumentsInvalid, SiloError, ToolUnknown
from silo.model import File, Isolation, Logs, Result, Tool
from silo.router.index import Match
from silo.sdk.describe import describe
from silo.sdk.skill import find_skill

REPOSITORY = Path(__file__).parents[2]

PICTURE = File(b"\x89PNG...", "image/png", "picture.png")
TABLE = File(b"a,b\n", "text/csv", "table.csv")


def result(text: str, data: Any = None, *, files: tuple[File, ...] = (), is_error: bool = False) -> Result:
    return Result(
        text=text,
        data=data,
        has_data=data is not None,
        files=files,
        is_error=is_error,
        logs=Logs(),
        isolation=Isolation.MICROVM,
        guest={"kernel": "6.1.0"},
        timing={"guest": 0.003, "total": 0.005},
    )


class RecordedRuntime:
    """The methods of `silo.runtime.Runtime` that the examples use. It returns recorded answers and keeps the calls."""

    def __init__(self, tools: tuple[Tool, ...]) -> None:
        self._tools = tools
        self.calls: list[tuple[str, Mapping[str, Any]]] = []
        self.answers: dict[str, Result | SiloError] = {
            "jwt.sign": result('{"token":"h.p.s"}', {"token": "h.p.s"}),
            "jwt.verify": result("The token has expired.", {"reason": "expired"}, is_error=True),
            "image.convert": result("picture.png: 1 x 1 pixels", files=(PICTURE, TABLE)),
        }

    async def tools(self) -> tuple[Tool, ...]:
        return self._tools

    async def search(self, query: str, *, limit: int = 5) -> tuple[Match, ...]:
        return tuple(Match(tool, 1.0) for tool in self._tools[:limit])

    async def call(self, tool: str, arguments: Mapping[str, Any] | None = None) -> Result:
        self.calls.append((tool, dict(arguments or {})))
        answer = self.answers.get(tool)
        if answer is None:
            raise ToolUnknown(f"there is no tool {tool!r}", hint="did you mean 'jwt.sign'?")
        if tool == "jwt.sign" and "claims" not in (arguments or {}):
            raise ArgumentsInvalid("'claims' is missing", hint='give claims, e.g. {"sub": "42"}')
        if isinstance(answer, SiloError):
            raise answer
        return answer


@pytest.fixture(scope="session")
def load_script() -> Callable[[str], ModuleType]:
    """Return a function that imports a script, given its path within the repository."""

    def load(path: str) -> ModuleType:
        name = "script_" + path.removesuffix(".py").replace("/", "_")
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, REPOSITORY / path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module  # annotations are looked up through it
            spec.loader.exec_module(module)
        return sys.modules[name]

    return load


@pytest.fixture(scope="session")
def tools(load_script) -> tuple[Tool, ...]:
    """Return tools of the built-in skills, with the schemas that they really have."""
    found = []
    for namespace, name in (("jwt", "sign"), ("jwt", "verify"), ("image", "convert")):
        module = load_script(f"skills/{namespace}/skill.py")
        described = describe(find_skill(module), summary=module.__doc__ or "")
        (told,) = [tool for tool in described["tools"] if tool["name"] == name]
        found.append(
            Tool(
                skill=namespace,
                name=name,
                description=told["description"],
                input_schema=told["input_schema"],
                output_schema=told["output_schema"],
                require_approval=False,
                time_to_live_s=600,
                secrets=(),
                timeout_s=30.0,
            )
        )
    return tuple(found)


@pytest.fixture
def runtime(tools) -> RecordedRuntime:
    return RecordedRuntime(tools)
