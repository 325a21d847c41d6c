"""What a person is asked, in full, and the key under which their answer counts. Pure: nobody is asked here.

`silo.approvals.consent` asks and waits; `silo_interaction` decides how a question looks.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from silo_interaction import Question, WantedSecret

from silo.model import Call, Caller, File, Isolation, SecretSpec, Skill, Tool
from silo.schema.canonical import HashedArguments, canonical, sha256_hex
from silo.wire.messages import Json

_WAYS_IN = {"cli": "the command line", "mcp": "MCP", "library": "the Python library"}
_SHOWN_CHARS = 16
"""How much of a hash is compared to find changes. That decides about a sentence on a page, not about a call."""


def principal(caller: Caller) -> str:
    """Return who calls: the way in, and what the client calls itself. Two sessions of one client have the same."""
    return f"{caller.kind}:{caller.client}"


def asker(caller: Caller) -> str:
    """Return for whom an answer counts.

    That is one session of a client, or the terminal of a person. The client's name alone would not do: another program
    can claim the same one.
    """
    if caller.terminal:
        return f"{principal(caller)} at terminal {caller.terminal}"
    return f"{principal(caller)} in session {caller.session}"


def counted_as(caller: Caller) -> str:
    """Return whose waiting questions are counted together: a session's or a terminal's.

    Commands without a person count as one asker, because a program can start as many as it likes.
    """
    return principal(caller) if caller.kind == "cli" and not caller.terminal else asker(caller)


def call_key(call: Call, arguments: HashedArguments, skill: Skill, tool: Tool, isolation: Isolation) -> str:
    """Return the key of an approval: SHA-256 in hex over caller, session, tool, arguments, script and isolation.

    An approval counts only for exactly these: a changed script asks again, and so does a weaker boundary, or a new
    connection of the same client.
    """
    who_asks = asker(call.caller)
    return sha256_hex(["call 2", who_asks, tool.id, arguments.json, arguments.labels, skill.digest, isolation.value])


def secret_key(
    call: Call, arguments: HashedArguments, skill: Skill, tool: Tool, isolation: Isolation, name: str
) -> str:
    """Return the key under which a typed-in secret counts: for exactly the call that the question showed."""
    return sha256_hex(["secret 2", name, call_key(call, arguments, skill, tool, isolation)])


def refusal_key(call: Call, arguments: HashedArguments, skill: Skill, tool: Tool) -> str:
    """Return the key of a denial, which covers more than an approval: every session of a client, and arguments alike.

    Otherwise, an agent that was refused could ask again with another space, or after it connected once more. Arguments
    are alike if they differ only as `_gist` says. A person's own command is never refused without being asked, so its
    key is empty.
    """
    if call.caller.kind == "cli":
        return ""
    return sha256_hex(["refusal", principal(call.caller), tool.id, _gist(arguments.json), skill.digest])


def secret_refusal_key(call: Call, skill: Skill, tool: Tool, name: str) -> str:
    """As `refusal_key`, for a person who did not give a secret: it covers all calls of the tool."""
    if call.caller.kind == "cli":
        return ""
    return sha256_hex(["secret refusal", principal(call.caller), tool.id, name, skill.digest])


def profile(arguments: HashedArguments, skill: Skill, tool: Tool, isolation: Isolation) -> dict[str, str]:
    """Return what silo remembers of an approved call, to say later what changed: only hashes and names, no values."""
    return {
        **{f"argument {name}": digest[:_SHOWN_CHARS] for name, digest in arguments.by_name.items()},
        "script": skill.digest[:_SHOWN_CHARS],
        "secrets": ", ".join(tool.secrets),
        "network": ", ".join(skill.header.network),
        "isolation": isolation.value,
    }


def changes(before: Mapping[str, str] | None, now: Mapping[str, str]) -> tuple[str, ...]:
    """Return in sentences how a call differs from the last approved call of the same tool; empty if there is none."""
    if before is None:
        return ()
    found = []
    if before.get("script") != now["script"]:
        found.append("The skill's script or its packages are not those of the last approval.")
    for label, what in (("secrets", "secrets"), ("network", "network"), ("isolation", "isolation")):
        if before.get(label) != now[label]:
            found.append(f"Its {what} was {before.get(label) or 'none'}, and is {now[label] or 'none'}.")
    for label in [name for name in now if name.startswith("argument ")]:
        if label not in before:
            found.append(f"The {label} was not given the last time.")
        elif before[label] != now[label]:
            found.append(f"The {label} is not what it was the last time.")
    found += [
        f"The {label} was given the last time, and is not now."
        for label in before
        if label.startswith("argument ") and label not in now
    ]
    return tuple(found)


def call_question(
    call: Call,
    arguments: HashedArguments,
    skill: Skill,
    tool: Tool,
    isolation: Isolation | None,
    *,
    why: str,
    before: Mapping[str, str] | None,
    now: Mapping[str, str],
) -> Question:
    """Return what a person must see to decide about a call: everything that will run, and what it gets.

    Args:
        isolation: the boundary of the call; None if it is not known yet.
        why: why a person is asked.
        before: the profile of the last approved call of this tool, if there was one.
        now: the profile of this call.
    """
    secrets = [_delivery(name, skill.header.secrets.get(name)) for name in tool.secrets]
    facts = (
        ("tool", tool.id),
        ("does", tool.description),
        ("why you are asked", why),
        ("secrets", "\n".join(secrets) or "none"),
        ("network", ", ".join(skill.header.network) or "no network"),
        ("isolation", _ISOLATION[isolation] if isolation is not None else "the strongest that works here when it runs"),
        ("skill", f"{skill.source}, {skill.digest[:_SHOWN_CHARS]}"),
        *_session(call.caller),
    )
    return Question(
        title=f"Run {tool.id}",
        who=who(call.caller),
        facts=facts,
        danger="It shares this machine's kernel while it runs." if isolation is Isolation.NAMESPACE else "",
        arguments=tuple((name, shown(value, arguments.digest_of)) for name, value in call.arguments.items()),
        changes=changes(before, now),
        grace_s=tool.time_to_live_s,
        group=tool.id,
    )


def secret_question(
    call: Call, arguments: HashedArguments, skill: Skill, tool: Tool, isolation: Isolation, name: str, *, keeper: str
) -> Question:
    """Return what a person must see to type a secret in: the call that gets it, and what the skill may do with it."""
    spec = skill.header.secrets.get(name)
    facts = (
        ("secret", name),
        ("for the tool", tool.id),
        ("does", tool.description),
        ("how it gets there", _delivery(name, spec)),
        ("network", ", ".join(skill.header.network) or "no network"),
        ("isolation", _ISOLATION[isolation]),
        ("skill", f"{skill.source}, {skill.digest[:_SHOWN_CHARS]}"),
        *_session(call.caller),
    )
    return Question(
        title=f"Type in {name} for {skill.namespace}",
        who=who(call.caller),
        facts=facts,
        arguments=tuple((name, shown(value, arguments.digest_of)) for name, value in call.arguments.items()),
        group=f"secrets of {skill.namespace}",
        wanted=WantedSecret(name, spec.description if spec is not None else "", keeper),
    )


def who(caller: Caller) -> str:
    """Return a description of the caller; the client's name is its own claim."""
    return f"{caller.client or 'an unnamed client'} through {_WAYS_IN[caller.kind]}"


def shown(value: Json, digest_of: Callable[[File], str]) -> Json:
    """Return an argument as JSON values for display, with a sentence for each file.

    A text that reads like such a sentence begins with `text: `, so that it can't pass for a file.

    Args:
        digest_of: returns the hash of a file's content.
    """
    if isinstance(value, File):
        digest = digest_of(value)[:_SHOWN_CHARS]
        return f"file {value.name or 'without a name'}, {value.media_type}, {value.size} bytes, SHA-256 {digest}…"
    if isinstance(value, Mapping):
        return {key: shown(item, digest_of) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [shown(item, digest_of) for item in value]
    return f"text: {value}" if isinstance(value, str) and _LIKE_A_FILE.match(value) else value


def one_line(names: Sequence[str]) -> str:
    """Return names as words: `'A'`, `'A' and 'B'`."""
    quoted = [repr(name) for name in names]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


_LIKE_A_FILE = re.compile(r"(text: )*[\W_]*file\b.*SHA-256", re.DOTALL | re.IGNORECASE)

_ISOLATION = {
    Isolation.MICROVM: "microVM: a fresh virtual machine with its own kernel",
    Isolation.GVISOR: "gVisor: a fresh sandbox with a kernel in user space",
    Isolation.NAMESPACE: "namespace: a fresh sandbox on this machine's own kernel",
}


def _session(caller: Caller) -> tuple[tuple[str, str], ...]:
    """Return the fact that tells two connections of one client apart. A person's own command needs none."""
    if caller.kind == "cli" or not caller.session:
        return ()
    what = "connection of this client" if caller.kind == "mcp" else "run of this program"
    return (("session", f"{caller.session}; a yes counts for this {what} only"),)


_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Characters that show nothing but count as printable: fillers, the empty Braille cell, variation selectors."""


def _gist(value: Json) -> Json:
    """Return arguments without what a person would not call a difference.

    These are white space and other characters that can't be seen, upper and lower case, compatible forms of letters
    (Unicode NFKC), the order of keys, `1` for `1.0`, and whether something empty is given or left out.
    """
    if isinstance(value, str):
        # Twice: a blank inside a pair of characters keeps NFKC from joining them, and NFKC makes blanks of some.
        return _without_blanks(unicodedata.normalize("NFKC", _without_blanks(value)).casefold())
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        found = [[_gist(key), _gist(item)] for key, item in value.items()]
        pairs = sorted((pair for pair in found if pair[1] not in (None, "", [])), key=canonical)
        return {"pairs": pairs} if pairs else None  # an object, so that it is not the gist of a list of pairs
    if isinstance(value, list | tuple):
        return [_gist(item) for item in value]
    return value


def _without_blanks(text: str) -> str:
    return _UNSEEN.sub("", "".join(filter(str.isprintable, "".join(text.split()))))


def _delivery(name: str, spec: SecretSpec | None) -> str:
    if spec is not None and spec.deliver == "inject":
        return f"{name}, put in by the egress proxy for {spec.host} only; the skill never sees it"
    return f"{name}, handed to the skill on its standard input"
