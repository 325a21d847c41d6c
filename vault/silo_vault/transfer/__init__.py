"""Imports secrets from files of other programs, and exports a vault as a file encrypted with age.

    from silo_vault.transfer import read_dotenv, to_text

    found = read_dotenv(to_text(data))
    for entry in found.entries: ...
    for skipped in found.skipped: ...

Nothing here opens a vault, writes a file, or changes what it reads. The caller decides what to do with the entries.
Importing `silo_vault` does not import this package, and importing this package does not load `cryptography`.
"""

from silo_vault.errors import SourceUnreadable
from silo_vault.transfer.dotenv import read_dotenv
from silo_vault.transfer.entry import (
    MAX_ENTRIES,
    MAX_SOURCE_BYTES,
    Entry,
    Found,
    Skipped,
    to_name,
)
from silo_vault.transfer.password_store import read_password_store
from silo_vault.transfer.predecessor import find_predecessor, read_predecessor
from silo_vault.transfer.sealed import (
    Export,
    from_plain_text,
    needs_passphrase,
    open_sealed,
    seal_to_passphrase,
    seal_to_recipients,
    to_plain_text,
)
from silo_vault.transfer.source import read_source, to_text

__all__ = [
    "MAX_ENTRIES",
    "MAX_SOURCE_BYTES",
    "Entry",
    "Export",
    "Found",
    "Skipped",
    "SourceUnreadable",
    "find_predecessor",
    "from_plain_text",
    "needs_passphrase",
    "open_sealed",
    "read_dotenv",
    "read_password_store",
    "read_predecessor",
    "read_source",
    "seal_to_passphrase",
    "seal_to_recipients",
    "to_name",
    "to_plain_text",
    "to_text",
]
