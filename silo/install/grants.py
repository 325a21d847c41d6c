"""What a name holds that new code under it would take over or be given: its grants. Reads, and changes nothing.

An agent can run `silo install` as a person can. So code gets a grant only if a person agreed to it on a channel that an
agent does not hold, or if `silo.toml` names its digest. `silo.install.installer` asks.

The vault stays closed: nothing is unlocked before a person agreed. Its file says which names it has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from silo.catalog.store import UNKNOWN, SkillStore, needs_approval
from silo.model import Skill, SkillHeader, Tool
from silo.policy.patterns import Glob
from silo.policy.rules import Rule
from silo.secrets.sources import Sources


@dataclass(frozen=True)
class Grants:
    """Finds the grants of a name.

    Attributes:
        store: the installed skills, and what is remembered of removed ones.
        rules: the user's.
        sources: where secrets are looked up.
        in_vault: returns namespace and name of each secret in the vault file, without opening it.
        approved: returns the tools for which an approval still counts.
    """

    store: SkillStore
    rules: Sequence[Rule]
    sources: Sources
    in_vault: Callable[[], Sequence[tuple[str, str]]]
    approved: Callable[[], Sequence[str]]

    def of(self, header: SkillHeader) -> tuple[str, ...]:
        """Return the grants that a script with this header gets if it is installed, each in words, sorted. Blocks.

        They are the secrets that the vault has for its namespace, whether the header declares them or not; the declared
        secrets that it would find elsewhere; tools of the installed or last removed skill that need approval; approvals
        that still count; and rules that allow calls of its tools by name.

        Raises:
            SiloError: the vault or the store of approvals can't be read, so nobody knows what the name holds.
        """
        name = header.namespace
        found = {*self._secrets(header), *self._tools(name), *self._rules(name)}
        found |= {f"an approval of {tool} still counts" for tool in self.approved() if tool.startswith(f"{name}.")}
        return tuple(sorted(found))

    def is_installed(self, namespace: str, digest: str) -> bool:
        """Whether exactly this code has the name now, so that installing it again grants nothing."""
        installed = self._installed(namespace)
        if installed is not None:
            return installed.digest == digest
        return self.store.unrecorded_digest(namespace) == digest

    def _secrets(self, header: SkillHeader) -> set[str]:
        name = header.namespace
        in_vault = self.in_vault()
        found = {f"the secret {secret} of {name}, in the vault" for namespace, secret in in_vault if namespace == name}
        for secret in header.secrets:
            reference = self.sources.reference(name, secret)
            if reference is not None:
                found.add(f"the secret {secret}, from {reference.text}")
                continue
            if ("", secret) in in_vault:
                found.add(f"the secret {secret} of all skills, in the vault")
            # Nobody looks there: a server may be slow, and a keyring may ask for its password.
            if self.sources.server is not None and self.sources.server_path:
                found.add(f"the secret {secret}, if it is in HashiCorp Vault")
            if self.sources.keyring is not None and self.sources.use_keyring:
                found.add(f"the secret {secret}, if it is in the keyring")
        return found

    def _tools(self, name: str) -> set[str]:
        installed = self._installed(name)
        unknown = f"what {name} held before it was removed, which is unknown"
        found = {unknown if one == UNKNOWN else f"{one} needed approval" for one in self.store.removed(name)}
        if installed is None and name in self.store.namespaces():
            found.add(f"what {name} holds now, which is unknown: its record can't be read")
        if installed is not None:
            found |= {f"{tool.id} needs approval" for tool in installed.tools if self._is_asked(installed, tool)}
        return found

    def _is_asked(self, skill: Skill, tool: Tool) -> bool:
        return needs_approval(skill, tool) or any(rule.verdict == "ask" and rule.names(tool) for rule in self.rules)

    def _rules(self, name: str) -> set[str]:
        return {
            f"{rule.name} allows {glob.text}"
            for rule in self.rules
            if rule.verdict == "allow"
            for glob in rule.tools
            if _names(glob, name)
        }

    def _installed(self, namespace: str) -> Skill | None:
        return next((skill for skill in self.store.list() if skill.namespace == namespace), None)


def _names(glob: Glob, namespace: str) -> bool:
    """Whether a pattern is about a skill of this name in particular; `*` and `*.read` are about any skill."""
    skill = glob.text.partition(".")[0]
    return bool(set(skill) - set("*?")) and Glob(skill).matches(namespace)
