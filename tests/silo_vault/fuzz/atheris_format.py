"""Fuzzes the parser, guided by coverage, for as long as you like. It is not a test, and atheris is not a dependency.

Run it by hand:

    uv run --with atheris python tests/silo_vault/fuzz/atheris_format.py -max_total_time=600

It starts from the golden files and from earlier findings. It keeps new inputs in a temporary folder, or in the folder
that is given. It stops at the first input that breaks a rule of `oracle.check`, and writes it to the present folder as
`broken-….vault`. Give that file a descriptive name and move it to `found/`, where `test_found.py` uses it.

Few mutations of a whole file keep its lengths and its canonical JSON. So the first byte of an input selects how the
rest is used: as a file, as the text of a header, as a JSON value that is made canonical, or as records after a good
header.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import sys
import tempfile
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["silo_vault", "json"]):
    from oracle import check, framed

HERE = Path(__file__).resolve().parent
GOOD = (HERE.parent / "golden" / "v1-raw-key.vault").read_bytes()
HEADER_END = 14 + struct.unpack_from(">I", GOOD, 10)[0]
FILE, HEADER, JSON, RECORDS = range(4)
TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[-+.0-9eE]+|[a-z]+|.', re.DOTALL)
WRAPS = [
    {
        "ciphertext": "vault:v1:" + "A" * 80,
        "key": "silo",
        "key_id": "00" * 8,
        "kind": "transit",
        "mount": "transit/eu",
    },
    {
        "kdf": {"m_kib": 65536, "name": "argon2id", "p": 4, "salt": "00" * 16, "t": 3},
        "key_id": "01" * 8,
        "kind": "passphrase",
        "nonce": "00" * 12,
        "wrapped_dek": "00" * 48,
    },
    {"kind": "new", "list": [1, -2, True, None, {"text": "Ä\ud800"}]},
]
"""The kinds of keys that the golden files lack, one of them unknown."""
ODD = [
    b"1e400",
    b"-0",
    b"0",
    b"1",
    b"1.0",
    b"9" * 19,
    b"9" * 5000,
    b"true",
    b"null",
    b"NaN",
    b"[]",
    b"{}",
    b'""',
    b'"env"',
    b'"new"',
]
DICTIONARY: list[bytes] = [
    *(b'"%b"' % word for word in b"created generation seals vault_id wraps kdf key_id kind nonce wrapped_dek".split()),
    *(b'"%b"' % word for word in b"name m_kib p salt t none argon2id env keyring kv passphrase transit new".split()),
    *(b'"%b"' % word for word in b"ciphertext key mount".split()),
    *(*ODD, rb"\ud800", rb"\u0000", b"[" * 8),
    *(bytes(4), b"\xff" * 4, b"\0\0\0\1", b"silo-vlt\0\1"),
]


def to_file(data: bytes) -> bytes:
    """Return the file that an input represents."""
    kind, rest = (data[0] % 4, data[1:]) if data else (FILE, b"")
    if kind == FILE:
        return rest
    if kind == RECORDS:
        return GOOD[:HEADER_END] + rest + bytes(32)
    if kind == JSON:
        try:
            text = json.dumps(json.loads(rest), sort_keys=True, separators=(",", ":"))
        except (ValueError, RecursionError):
            return framed(rest)
        rest = text.replace(
            "Infinity", "1e400"
        ).encode()  # what it was before parsing; "Infinity" itself is refused early
    return framed(rest)


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Half of the time, mutate tokens of a JSON text: mutated bytes are seldom JSON any more."""
    random = Random(seed)
    if not data or data[0] % 4 != JSON or random.random() < 0.5:
        return atheris.Mutate(data, max_size)
    tokens = TOKEN.findall(data[1:])
    for _ in range(random.randint(1, 4)):
        start = random.randrange(len(tokens) + 1)
        end = min(len(tokens), start + random.choice((0, 1, 1, 1, 4)))
        new = random.choice(random.choice((ODD, ODD, tokens or ODD)))
        tokens[start:end] = random.choice(([new], [new], [], [b"["] * 500 + [b"]"] * 500, [b'{"a":', new, b"}"]))
    return (data[:1] + b"".join(tokens))[:max_size]


def one_input(data: bytes) -> None:
    """Check one input. If it breaks a rule, write the file that it represents."""
    file = to_file(data)
    try:
        check(file)
    except BaseException:
        Path(f"broken-{hashlib.sha256(file).hexdigest()[:12]}.vault").write_bytes(file)
        raise


def seeds(folder: Path) -> None:
    """Write the initial inputs."""
    for file in [*(HERE.parent / "golden").glob("*.vault"), *(HERE / "found").iterdir()]:
        data = file.read_bytes()
        end = 14 + int.from_bytes(data[10:14], "big")
        for kind, part in ((FILE, data), (HEADER, data[14:end]), (JSON, data[14:end]), (RECORDS, data[end:-32])):
            (folder / f"{kind}-{file.stem}").write_bytes(bytes([kind]) + part)
    header = json.loads(GOOD[14:HEADER_END])
    header["wraps"] += WRAPS
    (folder / "every-kind-of-wrap").write_bytes(bytes([JSON]) + json.dumps(header).encode())
    header["wraps"] = WRAPS[-1:]
    (folder / "unknown-kind-of-wrap").write_bytes(bytes([JSON]) + json.dumps(header).encode())


def main() -> None:
    """Run until stopped. The arguments are those of libFuzzer."""
    with tempfile.TemporaryDirectory() as folder:
        corpus, words = Path(folder, "corpus"), Path(folder, "words")
        corpus.mkdir()
        seeds(corpus)
        words.write_text(
            "".join(
                '"{}"\n'.format("".join(f"\\x{byte:02x}" for byte in word)) for word in DICTIONARY if len(word) < 64
            )
        )
        limits = [f"-dict={words}", "-max_len=65536", "-timeout=5", "-rss_limit_mb=1024", "-len_control=0"]
        # libFuzzer writes to the first folder and only reads the others.
        atheris.Setup([sys.argv[0], *limits, *sys.argv[1:], os.fspath(corpus)], one_input, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
