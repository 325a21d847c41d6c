"""`Skill`: where a script registers its tools, its manual and its warmup.

The decorator checks names and signatures, so that the traceback points at the line to change. `silo.sdk.signature`
reads the annotations once the whole script is imported; `silo.sdk.invoke` runs the tools.

`import silo` loads this module, so slow modules are imported where they are used: `silo.sdk.signature` and
`silo.sdk.author`.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, overload

from silo.sdk.errors import SkillDefinitionError

if TYPE_CHECKING:
    from silo.sdk.signature import Signature

AnyFunction = Callable[..., Any]
F = TypeVar("F", bound=AnyFunction)
Manual = TypeVar("Manual", bound=Callable[[], str])
Warmup = TypeVar("Warmup", bound=Callable[[], Awaitable[None] | None])

NAMESPACE: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
TOOL_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
SECRET_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]{0,127}")
MAX_TIME_TO_LIVE_S: Final = 24 * 3600
"""The longest time for which a decorator may let one approval stand; a day is already generous."""


@dataclass(frozen=True)
class ToolDefinition:
    """A registered function of a skill; `Skill.tool` explains the attributes."""

    name: str
    function: AnyFunction
    require_approval: bool
    time_to_live: int
    secrets: tuple[str, ...] | None
    network: tuple[str, ...] | None
    title: str | None
    read_only: bool | None
    destructive: bool | None
    idempotent: bool | None

    @cached_property
    def signature(self) -> Signature:
        """The parameters and the result of the tool, from its annotations and its docstring; read once.

        Raises:
            SkillDefinitionError: an annotation can't be used.
        """
        from silo.sdk.signature import read_signature

        return read_signature(self.name, self.function)

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function."""
        return inspect.iscoroutinefunction(self.function)


class Skill:
    """A skill: one script, its tools, and the functions that prepare them.

    Attributes:
        namespace: the skill's name, which must be that of the script's header.
    """

    def __init__(self, namespace: str) -> None:
        """Name the skill.

        Raises:
            SkillDefinitionError: not `[a-z][a-z0-9_]*` of at most 32 characters, or it contains `__`, which separates
                skill and tool where a client allows no dot.
        """
        if not isinstance(namespace, str) or not NAMESPACE.fullmatch(namespace) or "__" in namespace:
            raise SkillDefinitionError(
                f"{namespace!r} can't name a skill; take lower-case letters, digits and single '_', "
                "a letter first, at most 32 characters"
            )
        self.namespace = namespace
        self._tools: dict[str, ToolDefinition] = {}
        self._manual: Callable[[], str] | None = None
        self._warmups: list[Callable[[], object]] = []

    def __repr__(self) -> str:
        return f"<Skill {self.namespace}: {', '.join(self._tools) or 'no tools'}>"

    @property
    def tools(self) -> Mapping[str, ToolDefinition]:
        """The tools by name, in the order of the script."""
        return MappingProxyType(self._tools)

    @property
    def manual(self) -> Callable[[], str] | None:
        """The function that returns the instructions, or None."""
        return self._manual

    @property
    def warmups(self) -> tuple[Callable[[], object], ...]:
        """The warmups, in the order of the script."""
        return tuple(self._warmups)

    @overload
    def tool(self, function: F, /) -> F: ...

    @overload
    def tool(
        self,
        /,
        *,
        name: str | None = None,
        require_approval: bool = False,
        time_to_live: int = 600,
        secrets: Iterable[str] | None = None,
        network: Iterable[str] | None = None,
        title: str | None = None,
        read_only: bool | None = None,
        destructive: bool | None = None,
        idempotent: bool | None = None,
    ) -> Callable[[F], F]: ...

    def tool(
        self,
        function: AnyFunction | None = None,
        /,
        *,
        name: str | None = None,
        require_approval: bool = False,
        time_to_live: int = 600,
        secrets: Iterable[str] | None = None,
        network: Iterable[str] | None = None,
        title: str | None = None,
        read_only: bool | None = None,
        destructive: bool | None = None,
        idempotent: bool | None = None,
    ) -> AnyFunction:
        """Offer a function to agents. Returns the function unchanged, so that a test can call it.

        A parameter without annotation accepts anything. The docstring tells the model what the tool does; its parameter
        section (Google, NumPy or Sphinx style) tells what each parameter means.

        Args:
            function: Python passes it if the decorator has no parentheses, as `@skill.tool`.
            name: default: the function's.
            require_approval: a person must agree to each call first.
            time_to_live: seconds for which such an approval may stand, at most a day; 0: for one call.
            secrets: names from the header that this tool may have; default: all of them. Never more than the header.
            network: host names from the header that this tool may reach; default: all of them. Never more than the
                header.
            title: a short name for people.
            read_only: the tool changes nothing. silo passes this and the next two to clients as hints and decides
                nothing by them.
            destructive: it may delete or overwrite.
            idempotent: the same call twice does no more than once.

        Raises:
            SkillDefinitionError: a name is taken or not allowed, or the function has `*args`, `**kwargs` or
                positional-only parameters.
        """

        def register(target: AnyFunction) -> AnyFunction:
            tool_name = self._checked_name(target, name)
            self._tools[tool_name] = ToolDefinition(
                name=tool_name,
                function=target,
                require_approval=_flag(tool_name, "require_approval", require_approval),
                time_to_live=_time_to_live(tool_name, time_to_live),
                secrets=_names(tool_name, "secrets", secrets, SECRET_NAME),
                network=_names(tool_name, "network", network, None),
                title=title,
                read_only=_hint(tool_name, "read_only", read_only),
                destructive=_hint(tool_name, "destructive", destructive),
                idempotent=_hint(tool_name, "idempotent", idempotent),
            )
            return target

        if isinstance(function, str):
            raise SkillDefinitionError(f'write @skill.tool(name="{function}"): a name is given by keyword')
        return register if function is None else register(function)

    @overload
    def instructions(self, function: Manual, /) -> Manual: ...

    @overload
    def instructions(self, /) -> Callable[[Manual], Manual]: ...

    def instructions(self, function: Callable[[], str] | None = None, /) -> AnyFunction:
        """Register the function that returns the skill's manual, a Markdown text for the model; run once, at install.

        Raises:
            SkillDefinitionError: there is one already, or it takes parameters.
        """

        def register(target: Callable[[], str]) -> Callable[[], str]:
            if self._manual is not None:
                raise SkillDefinitionError(f"the skill {self.namespace!r} has two @skill.instructions(); keep one")
            _check_takes_nothing(target, "instructions")
            self._manual = target
            return target

        return register if function is None else register(function)

    @overload
    def warmup(self, function: Warmup, /) -> Warmup: ...

    @overload
    def warmup(self, /) -> Callable[[Warmup], Warmup]: ...

    def warmup(self, function: Callable[[], object] | None = None, /) -> AnyFunction:
        """Register a function that prepares the process for calls, before there is any secret or argument.

        It runs when the template is built, and again in a guest that waits for a call, so it must be repeatable.

        Raises:
            SkillDefinitionError: it takes parameters.
        """

        def register(target: Callable[[], object]) -> Callable[[], object]:
            _check_takes_nothing(target, "warmup")
            self._warmups.append(target)
            return target

        return register if function is None else register(function)

    def run(self, argv: Iterable[str] | None = None) -> NoReturn:
        """Run one tool from the command line, for the author, **without silo's isolation**; see `silo.sdk.author`.

        Args:
            argv: default: `sys.argv` without the script's name.

        Raises:
            SystemExit: always; 0 done, 1 the tool failed, 2 the command line was wrong.
        """
        from silo.sdk.author import main

        sys.exit(main(self, sys.argv[1:] if argv is None else list(argv)))

    def _checked_name(self, function: object, name: str | None) -> str:
        if not callable(function) or not inspect.isroutine(inspect.unwrap(function)):
            raise SkillDefinitionError(f"@skill.tool() takes a function, not {function!r}")
        found = getattr(function, "__name__", None) if name is None else name
        if not isinstance(found, str) or not TOOL_NAME.fullmatch(found):
            raise SkillDefinitionError(
                f"{found!r} can't name a tool; take lower-case letters, digits and '_', a letter first, "
                'at most 64 characters (or give one: @skill.tool(name="..."))'
            )
        if found in self._tools:
            raise SkillDefinitionError(f"the skill {self.namespace!r} has two tools named {found!r}; rename one")
        _check_parameters(found, function)
        return found


def find_skill(module: ModuleType) -> Skill:
    """Return the one `Skill` among a module's globals.

    Raises:
        SkillDefinitionError: there is none, or more than one, or it has no tools.
    """
    found = {id(value): value for value in vars(module).values() if isinstance(value, Skill)}
    if not found:
        raise SkillDefinitionError('the script defines no skill; add skill = Skill("...") at its top level')
    if len(found) > 1:
        names = ", ".join(repr(skill.namespace) for skill in found.values())
        raise SkillDefinitionError(f"the script defines more than one skill ({names}); a script is one skill")
    (skill,) = found.values()
    if not skill.tools:
        raise SkillDefinitionError(f"the skill {skill.namespace!r} has no tools; put @skill.tool() above a function")
    return skill


def _check_parameters(tool: str, function: AnyFunction) -> None:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise SkillDefinitionError(f"the tool {tool!r} has no signature that Python can read: {error}") from error
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise SkillDefinitionError(
            f"the tool {tool!r} is a generator; return a list, and use report_progress() to tell how far it is"
        )
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
            raise SkillDefinitionError(
                f"the tool {tool!r} takes {stars}{parameter.name}; "
                "an agent must know each parameter by name, so list them"
            )
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise SkillDefinitionError(
                f"the parameter {parameter.name!r} of the tool {tool!r} can only be given by position; "
                "arguments come by name, so remove the '/'"
            )


def _check_takes_nothing(function: object, decorator: str) -> None:
    if not callable(function) or isinstance(function, type):
        raise SkillDefinitionError(f"@skill.{decorator}() takes a function, not {function!r}")
    if inspect.signature(function).parameters:
        raise SkillDefinitionError(f"the function below @skill.{decorator}() takes no parameters")


def _flag(tool: str, keyword: str, value: object) -> bool:
    # `require_approval="no"` would be true: a restriction must not depend on Python's rules of truth.
    if not isinstance(value, bool):
        raise SkillDefinitionError(f"{keyword}= of the tool {tool!r} is True or False, not {value!r}")
    return value


def _hint(tool: str, keyword: str, value: object) -> bool | None:
    return None if value is None else _flag(tool, keyword, value)


def _time_to_live(tool: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_TIME_TO_LIVE_S:
        raise SkillDefinitionError(
            f"time_to_live= of the tool {tool!r} is a whole number of seconds from 0 to {MAX_TIME_TO_LIVE_S}, "
            f"not {value!r}"
        )
    return value


def _names(
    tool: str, keyword: str, value: Iterable[str] | None, rule: re.Pattern[str] | None
) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise SkillDefinitionError(f"{keyword}= of the tool {tool!r} is a list; write {keyword}=[{value!r}]")
    names = tuple(value)
    for name in names:
        if not isinstance(name, str) or not name or (rule is not None and not rule.fullmatch(name)):
            raise SkillDefinitionError(f"{name!r} in {keyword}= of the tool {tool!r} is not a valid name")
    return tuple(dict.fromkeys(names))
