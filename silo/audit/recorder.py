"""Records of a caller's actions that aren't calls, e.g. a change of keys or an answer on the page."""

from __future__ import annotations

from dataclasses import dataclass

from silo.audit.log import AuditLog
from silo.audit.trail import caller_record
from silo.model import Caller


@dataclass(frozen=True)
class Recorder:
    """Adds events of one caller to the audit log."""

    log: AuditLog
    caller: Caller

    def __call__(self, event: str, **facts: object) -> None:
        """Add an event. Blocks.

        Raises:
            AuditBroken: it could not be written.
        """
        self.log.append(event, {"caller": caller_record(self.caller), **facts})
