"""Every error that silo raises on purpose, each with a stable code and the exit status that goes with it.

What lives elsewhere: `docs/reference/errors.md` explains each code to a person. `silo.secrets` and `silo.approvals`
turn the errors of `silo_vault` and `silo_interaction` into these. `silo.remedies` has the kinds of what to do next.
`silo.cli.main` prints an error for a person, `silo.server.protocol.results` words it for a model.
"""

from __future__ import annotations

from typing import ClassVar

from silo.remedies import Advice, Remedy


class SiloError(Exception):
    """An expected failure: what happened, and what to do next.

    Attributes:
        message: names the thing that failed; never holds a secret.
        remedy: what to do next, as data.
        code: stable, kebab-case, documented; part of the interface.
        exit_status: what `silo` exits with (STYLE: part of the interface as well).
    """

    code: ClassVar[str] = "silo-error"
    exit_status: ClassVar[int] = 70

    def __init__(self, message: str, *, hint: str | Remedy) -> None:
        """`hint` is what to do next; plain text is `Advice`."""
        super().__init__(message)
        self.message = message
        self.remedy: Remedy = Advice(hint) if isinstance(hint, str) else hint

    @property
    def hint(self) -> str:
        """What to do next, worded for a person."""
        return str(self.remedy)

    def __str__(self) -> str:
        return self.message


# --- usage and configuration: exit status 2 ---------------------------------------------------------------------------


class UsageError(SiloError):
    """The command line, or an argument of the Python API, is invalid."""

    code = "usage"
    exit_status = 2


class ConfigInvalid(SiloError):
    """A configuration file or variable can't be read, or holds a value that the schema refuses."""

    code = "config-invalid"
    exit_status = 2


class ConfigUnknownKey(ConfigInvalid):
    """A key that the schema does not know: a misspelt restriction must not be ignored."""

    code = "config-unknown-key"


class HomeUnsafe(ConfigInvalid):
    """`SILO_HOME` can be written by others, or is not a folder."""

    code = "home-unsafe"


class StateUnusable(SiloError):
    """The file of questions and decisions is damaged, newer or open to others, or the disk refused: nothing runs."""

    code = "state-unusable"
    exit_status = 2


class SkillUnknown(SiloError):
    """No skill of that name is installed (or, for `install`, to be found)."""

    code = "skill-unknown"
    exit_status = 2


class ToolUnknown(SiloError):
    """No tool of that name; the remedy has the nearest ones."""

    code = "tool-unknown"
    exit_status = 2


class ArgumentsInvalid(SiloError):
    """The arguments of a call do not fit the tool's schema; nothing was started."""

    code = "arguments-invalid"
    exit_status = 2


class FileRefused(SiloError):
    """An input file is outside the folders that the user allowed, too large, or not a regular file."""

    code = "file-refused"
    exit_status = 2


class HeaderInvalid(SiloError):
    """The PEP 723 header of a skill is missing, broken, or asks for what the schema does not have."""

    code = "header-invalid"
    exit_status = 2


class FeatureNotYet(HeaderInvalid):
    """The header is valid, but asks for something that this version of silo refuses to pretend to have."""

    code = "not-in-this-version"


class LockDrift(SiloError):
    """The lock file beside a skill does not match the header of the script."""

    code = "lock-drift"
    exit_status = 2


class DependencyUnavailable(SiloError):
    """uv could not resolve, download or unpack what the skill depends on."""

    code = "dependency-unavailable"
    exit_status = 2


class SkillChanged(SiloError):
    """The installed script or lock is not the one that was agreed to."""

    code = "skill-changed"
    exit_status = 2


# --- refused: exit status 3 -------------------------------------------------------------------------------------------


class CallDenied(SiloError):
    """A rule or a person said no."""

    code = "denied"
    exit_status = 3


class ApprovalRequired(CallDenied):
    """The tool asks a person first, and there is none to ask (`SILO_APPROVAL_REQUIRED`)."""

    code = "approval-required"


class ApprovalTimeout(CallDenied):
    """A person was asked and did not answer in time, which is a no."""

    code = "approval-timeout"


class ApprovalPending(CallDenied):
    """A person was asked, and the question still stands; the same call, made again, finds the answer.

    Attributes:
        question: the id of the question.
        link: where a person can answer it; empty if there is no page. Knowing it is not enough to answer.
        title: what is asked, in one line.
    """

    code = "approval-pending"

    def __init__(self, message: str, *, hint: str | Remedy, question: str, link: str, title: str) -> None:
        super().__init__(message, hint=hint)
        self.question = question
        self.link = link
        self.title = title


# --- the vault: exit status 4 -----------------------------------------------------------------------------------------


class VaultLocked(SiloError):
    """The vault can't be opened: no key, the wrong key, or a damaged file (`SILO_AUTH_REQUIRED`)."""

    code = "vault-locked"
    exit_status = 4


class VaultUnusable(VaultLocked):
    """The vault file is damaged, of a newer version, or open to other users; nothing was written."""

    code = "vault-unusable"


class VaultBusy(VaultLocked):
    """Another process holds the vault's lock for too long."""

    code = "vault-busy"


class VaultRolledBack(VaultUnusable):
    """The vault file is older than one that was here before."""

    code = "vault-rolled-back"


class VaultUnreachable(VaultLocked):
    """A server that holds a key or a secret does not answer."""

    code = "vault-unreachable"


class VaultRefused(VaultLocked):
    """A server that holds a key or a secret refuses access."""

    code = "vault-refused"


class SecretMissing(SiloError):
    """A secret that the skill declares is not in the vault.

    Attributes:
        names: which ones; empty where it is not about a call.
    """

    code = "secret-missing"
    exit_status = 4

    def __init__(self, message: str, *, hint: str | Remedy, names: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.names = names


# --- the sandbox: exit status 5 --------------------------------------------------------------------------------------


class SandboxUnavailable(SiloError):
    """No backend that is strong enough works on this machine; silo never goes below the floor unasked."""

    code = "sandbox-unavailable"
    exit_status = 5


class SandboxBroken(SiloError):
    """The sandbox could not be built or started though its probe said that it works, or a guest died in a call."""

    code = "sandbox-broken"
    exit_status = 5


# --- the skill's own failures: exit status 1 --------------------------------------------------------------------------


class SkillFailed(SiloError):
    """The skill ran and failed; `stdout` and `stderr` are what it printed, capped and redacted."""

    code = "skill-failed"
    exit_status = 1

    def __init__(
        self, message: str, *, hint: str | Remedy, stdout: str = "", stderr: str = "", traceback: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.stdout = stdout
        self.stderr = stderr
        self.traceback = traceback


class SandboxTimeout(SkillFailed):
    """The call reached its deadline; the guest is gone."""

    code = "timeout"
    exit_status = 124


class SkillSyntaxError(SkillFailed):
    """Python can't parse the script."""

    code = "skill-syntax-error"


class SkillImportError(SkillFailed):
    """The script could not be imported: a missing dependency, or an exception at module level."""

    code = "skill-import-error"


class SkillMetadataInvalid(SkillFailed):
    """The script's description of itself breaks a rule: a decorator widens the header, a name or schema is invalid."""

    code = "skill-metadata-invalid"
    exit_status = 2


class ArgumentsRefused(SkillFailed):
    """The arguments fit the schema, but not the types of the tool's parameters: an invalid date, a rule of a model."""

    code = "arguments-invalid"
    exit_status = 2


class SkillRaised(SkillFailed):
    """A tool raised an exception."""

    code = "skill-exception"


class SkillExited(SkillFailed):
    """The skill ended its process instead of answering."""

    code = "skill-exited"


class SkillCrashed(SkillFailed):
    """A signal ended the skill's process."""

    code = "skill-crashed"


class SkillOutOfMemory(SkillFailed):
    """The guest ran out of memory."""

    code = "skill-out-of-memory"


class SkillFlooded(SkillFailed):
    """The skill printed more than a call may print; the guest was ended."""

    code = "output-flood"


class ResultInvalid(SkillFailed):
    """The answer is not JSON, or not of the shape that the wire allows."""

    code = "result-invalid"


class ResultTooLarge(SkillFailed):
    """The answer is larger than a result may be."""

    code = "result-too-large"


class SecretUndeclared(SkillFailed):
    """The skill asked for a secret that its header does not declare."""

    code = "secret-undeclared"


class CanaryTripped(SkillFailed):
    """A decoy of the vault turned up in what a call got or sent back; the call was ended, its result is withheld."""

    code = "canary-tripped"
    exit_status = 3


class SandboxLost(SkillFailed):
    """The guest died while it imported a skill. In the middle of a call, this becomes `SandboxBroken`."""

    code = "sandbox-lost"


# --- silo itself ------------------------------------------------------------------------------------------------------


class Interrupted(SiloError):
    """Somebody pressed Ctrl-C, or the client cancelled the call."""

    code = "interrupted"
    exit_status = 130


class AuditBroken(SiloError):
    """The audit record can't be written, so no call may run; or `audit verify` found a break."""

    code = "audit-broken"
    exit_status = 2
