"""Makes the golden files beside this script, once for each version of the format: `make_golden.py FOLDER`.

A golden file never changes: later versions must open the good ones and refuse the bad ones as they are. Nothing here
uses `silo_vault`. The predecessor's file follows the notes about its format. The age files for a passphrase follow the
specification of age, with a small work factor, so that tests are quick. `pyrage` makes those for a recipient; their
nonces are random, so their bytes differ each time. `identity-ssh-with-passphrase.txt` was made by
`ssh-keygen -t ed25519 -N pw`, and opens nothing.
"""

import base64
import hashlib
import hmac
import json
import sys
from pathlib import Path

import pyrage
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

PASSPHRASE = "correct horse battery staple"
MASTER_KEY = "golden-master-key-of-the-predecessor"
VAULT_ID = "000102030405060708090a0b0c0d0e0f"
CREATED = "2026-11-25T10:00:00Z"
SECRETS = [
    {"namespace": "", "name": "API_KEY", "value": "sk-golden-0123456789"},
    {"namespace": "", "name": "UNICODE", "value": "Grüße, мир\n\u202e"},
    {"namespace": "github", "name": "API_KEY", "value": "ghp_golden_0123456789"},
]
FLAT = {"API_KEY": "sk-golden-0123456789", "db/password-1": "golden pässword", "github:TOKEN": "ghp_golden_0123456789"}
NESTED = {"API_KEY": "sk-golden-0123456789", "github": {"TOKEN": "ghp_golden_0123456789", "port": 22}, "EMPTY": ""}


def predecessor(content: bytes, *, salt: bytes, nonce: bytes = b"golden-nonce", passphrase: str = MASTER_KEY) -> bytes:
    key = PBKDF2HMAC(algorithm=SHA256(), length=32, salt=salt, iterations=100_000).derive(passphrase.encode())
    return base64.b64encode(nonce + AESGCM(key).encrypt(nonce, content, None))


def age_file(plaintext: bytes, passphrase: str, *, log_n: int, seed: bytes = b"golden") -> bytes:
    """Return an age file (https://age-encryption.org/v1) for a passphrase and a plaintext of one chunk."""
    assert len(plaintext) <= 64 * 1024
    file_key, salt, nonce = (hashlib.shake_128(seed + bytes([i])).digest(16) for i in range(3))

    def unpadded(data: bytes) -> bytes:
        return base64.b64encode(data).rstrip(b"=")

    def hkdf(key: bytes, salt: bytes, info: bytes) -> bytes:
        return hmac.digest(hmac.digest(salt or bytes(32), key, "sha256"), info + b"\x01", "sha256")

    wrap_key = hashlib.scrypt(
        passphrase.encode(), salt=b"age-encryption.org/v1/scrypt" + salt, n=2**log_n, r=8, p=1, dklen=32, maxmem=2**27
    )
    body = ChaCha20Poly1305(wrap_key).encrypt(bytes(12), file_key, None)
    header = b"age-encryption.org/v1\n-> scrypt %b %d\n%b\n---" % (unpadded(salt), log_n, unpadded(body))
    mac = hmac.digest(hkdf(file_key, b"", b"header"), header, "sha256")
    payload = ChaCha20Poly1305(hkdf(file_key, nonce, b"payload")).encrypt(bytes(11) + b"\x01", plaintext, None)
    return header + b" " + unpadded(mac) + b"\n" + nonce + payload


def armoured(data: bytes) -> bytes:
    text = base64.b64encode(data).decode()
    lines = [text[i : i + 64] for i in range(0, len(text), 64)]
    return "\n".join(["-----BEGIN AGE ENCRYPTED FILE-----", *lines, "-----END AGE ENCRYPTED FILE-----", ""]).encode()


def document(**changed: object) -> bytes:
    whole = {"format": "silo-export", "version": 1, "vault_id": VAULT_ID, "created": CREATED, "secrets": SECRETS}
    return json.dumps(whole | changed, sort_keys=True, separators=(",", ":")).encode()


def main(folder: Path) -> None:
    salt = b"golden-salt-16-b"
    flat = predecessor(json.dumps(FLAT).encode(), salt=salt)
    raw = base64.b64decode(flat)
    identity = pyrage.x25519.Identity.generate()
    public = identity.to_public()
    good = age_file(document(), PASSPHRASE, log_n=10)
    to_recipient = pyrage.encrypt(document(), [public])
    secret = SECRETS[0]
    files = {
        "predecessor.salt": salt,
        "predecessor-flat.silo": flat,
        "predecessor-nested.silo": predecessor(json.dumps(NESTED).encode(), salt=salt),
        "bad-predecessor-changed.silo": base64.b64encode(raw[:-1] + bytes([raw[-1] ^ 1])),
        "bad-predecessor-cut-short.silo": flat[: len(flat) // 8 * 4],
        "bad-predecessor-shorter-than-a-nonce.silo": flat[:12],
        "bad-predecessor-empty.silo": b"",
        "bad-predecessor-not-base64.silo": b"{" + flat,
        "bad-predecessor-not-json.silo": predecessor(b'{"API_KEY": sk-golden-0123456789}', salt=salt),
        "bad-predecessor-a-list.silo": predecessor(b'["sk-golden-0123456789"]', salt=salt),
        "v1-passphrase.age": pyrage.passphrase.encrypt(document(), PASSPHRASE),
        "v1-passphrase-cheap.age": good,
        "v1-passphrase-armoured.age": armoured(good),
        "v1-recipient.age": to_recipient,
        "v1-recipient-armoured.age": pyrage.encrypt(document(), [public], armored=True),
        "v1-recipient.identity.txt": f"# made for this test alone\n# public key: {public}\n{identity}\n".encode(),
        "v1-plain.json": document(),
        "bad-age-v2.age": to_recipient.replace(b"age-encryption.org/v1", b"age-encryption.org/v2", 1),
        "bad-armour.age": armoured(good).replace(b"-----\n", b"-----\n=", 1),
        "bad-armour-cut-short.age": armoured(good)[:-40],
        "bad-changed.age": to_recipient[:-1] + bytes([to_recipient[-1] ^ 1]),
        "bad-cut-short.age": to_recipient[:-1],
        "bad-header-cut-short.age": to_recipient[:60],
        "bad-empty.age": b"",
        "bad-not-age.age": document(),
        "bad-scrypt-beside-another.age": good.replace(
            b"\n---", b"\n-> X25519 " + b"A" * 43 + b"\n" + b"A" * 43 + b"\n---"
        ),
        "bad-work-factor-23.age": good.replace(b" 10\n", b" 23\n", 1),
    }
    inside = {
        "bad-version-2": document(version=2, secrets=[{"sealed": True}]),
        "bad-version-true": document(version=True),
        "bad-unknown-field": document(only_on="workdays"),
        "bad-unknown-field-of-secret": document(secrets=[secret | {"expires": "2027-01-01"}]),
        "bad-field-missing": document().replace(b'"vault_id"', b'"created"'),
        "bad-field-gone": document().replace(b'"created":"2026-11-25T10:00:00Z",', b""),
        "bad-created": document(created="yesterday"),
        "bad-vault-id": document(vault_id="00"),
        "bad-not-json": document()[:-1],
        "bad-not-an-export": b'{"hello":"sk-golden-0123456789"}',
        "bad-secrets-no-list": document(secrets={}),
        "bad-secret-no-object": document(secrets=["sk-golden-0123456789"]),
        "bad-secret-twice": document(secrets=[secret, secret]),
        "bad-name": document(secrets=[secret | {"name": "sk-golden-0123456789"}]),
        "bad-namespace": document(secrets=[secret | {"namespace": "Sk golden"}]),
        "bad-value-empty": document(secrets=[secret | {"value": ""}]),
        "bad-value-number": document(secrets=[secret | {"value": 5}]),
        "bad-value-surrogate": document(secrets=[secret | {"value": "\ud800"}]),
    }
    files |= {f"{name}.age": age_file(content, PASSPHRASE, log_n=10) for name, content in inside.items()}
    for name, data in files.items():
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
