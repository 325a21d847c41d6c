"""What the author of a skill imports. Standard library only: it is mounted into every guest.

The runtime, for agents written in Python, is `silo.runtime`; it is not imported here, because guests do not have it.
"""

from __future__ import annotations

from silo.sdk.bounds import Length, Pattern, Range
from silo.sdk.context import report_progress, require_secret, require_secret_bytes
from silo.sdk.errors import SecretUnavailable, SkillDefinitionError
from silo.sdk.files import File
from silo.sdk.results import AgentResponse
from silo.sdk.skill import Skill
from silo.version import __version__

__all__ = [
    "AgentResponse",
    "File",
    "Length",
    "Pattern",
    "Range",
    "SecretUnavailable",
    "Skill",
    "SkillDefinitionError",
    "__version__",
    "report_progress",
    "require_secret",
    "require_secret_bytes",
]
