"""The digest of a skill: a person agrees to it, and an installed skill is checked against it."""

from __future__ import annotations

import hashlib

_DOMAIN = b"silo-skill-v1"


def skill_digest(script: bytes, lock: str) -> str:
    """Return SHA-256 in hex over the script and its normalised lock (`silo.catalog.lock.Lock.text`).

    Each part is preceded by its length in eight bytes, so that no byte can move from one part to the other
    unnoticed. A normalised lock has no addresses of package indexes, so the digest does not depend on the mirror.
    """
    total = hashlib.sha256()
    for part in (_DOMAIN, script, lock.encode()):
        total.update(len(part).to_bytes(8, "big"))
        total.update(part)
    return total.hexdigest()
