"""Clones of one template are identical until silo makes them differ: no two may ever make the same random choice."""

import time
from pathlib import Path

import anyio
import cffi
import cryptography
import pytest

from silo.sandbox.backends.microvm.backend import MicrovmBackend
from silo.sandbox.base import Limits
from silo.sandbox.skill.base import GuestRequest
from silo.sandbox.skill.call import open_guest
from silo.testing import PATIENCE_S

pytestmark = pytest.mark.anyio

SCRIPT = '''
"""Everything random that a program can ask for, asked for right after the clone was started."""
import hashlib, os, random, secrets, socket, ssl, subprocess, tempfile, time, uuid
from silo import Skill
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

skill = Skill("twin")
context = ssl.create_default_context()
before = random.Random()
system = random.SystemRandom()


@skill.warmup()
def warm():
    choose()


def hello() -> str:
    """The random and the key share of a TLS ClientHello (RFC 8446 §4.1.2)."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = context.wrap_bio(incoming, outgoing, server_hostname="example.com")
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        pass
    data = outgoing.read()
    assert data[5] == 1
    return data[11:43].hex() + data[-32:].hex()


def new_public_key() -> str:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint).hex()


def choose() -> dict:
    return {
        "urandom": os.urandom(16).hex(),
        "getrandom": os.getrandom(16).hex(),
        "dev": open("/dev/urandom", "rb").read(16).hex(),
        "random": random.random(),
        "random bits": random.getrandbits(64),
        "system": system.getrandbits(64),
        "uuid4": str(uuid.uuid4()),
        "uuid1": str(uuid.uuid1()),
        "secrets": secrets.token_hex(16),
        "ssl": ssl.RAND_bytes(16).hex(),
        "hello": hello(),
        "temporary": next(tempfile._get_candidate_names()),
        "ec": new_public_key(),
        "x25519": x25519.X25519PrivateKey.generate().public_key().public_bytes_raw().hex(),
        "aes": AESGCM.generate_key(256).hex(),
    }


@skill.tool()
def twin() -> dict:
    chosen = choose()
    return {
        "chosen": chosen,
        "time": time.time(),
        "hostname": socket.gethostname(),
        "boot": open("/proc/sys/kernel/random/boot_id").read(),
        "uuid": open("/proc/sys/kernel/random/uuid").read(),
    }
'''


@pytest.fixture
async def unit(make_unit):
    site = Path(cryptography.__file__).parents[1]
    packages = [Path(cryptography.__file__).parent, Path(cffi.__file__).parent, *site.glob("_cffi_backend*.so")]
    return await make_unit(SCRIPT, name="twin", packages=packages, limits=Limits(memory_mib=192))


@pytest.fixture(params=["started", "waiting"])
async def clones(request, unit, cache, images, kernel_folder):
    """A function that returns an open guest: started for the call, or rehearsed and waiting."""
    async with MicrovmBackend(
        home=cache, images=images, kernel_folder=kernel_folder, warm=3 if request.param == "waiting" else 0
    ) as backend:
        kinds: list[str] = []

        async def ask():
            began = time.time()
            async with open_guest(backend, unit, on_step=lambda _: None) as sandbox:
                reply = await sandbox.run(
                    GuestRequest("twin", {}), deadline=time.monotonic() + PATIENCE_S, on_progress=lambda _: None
                )
                kinds.append(reply.facts["backend"])
                return reply.outcome.data, began, time.time()

        if request.param == "waiting":
            await ask()
            with anyio.fail_after(PATIENCE_S):
                await backend.settle()
            kinds.clear()
        yield ask
        assert all(("warm" in kind) == (request.param == "waiting") for kind in kinds), kinds


async def test_two_clones_choose_nothing_alike(clones):
    first, second, third = [(await clones())[0]["chosen"] for _ in range(3)]
    alike = {what for what in first if len({str(each[what]) for each in (first, second, third)}) < 3}
    assert alike == set()


async def test_each_clone_has_a_name_of_its_own_and_the_hosts_time(clones):
    answers = [await clones() for _ in range(2)]
    assert len({answer["hostname"] for answer, _, _ in answers}) == 2
    for answer, began, ended in answers:
        assert began - 1 < answer["time"] < ended + 1


THREADED = '''
import os, threading, time
from silo import Skill

skill = Skill("twin")
turns = 0
jumped = []
TEMPLATE = time.time()


def watch() -> None:
    """Count until the clock jumps, then take random bytes."""
    global turns
    while time.time() - TEMPLATE < 3600:
        turns += 1
    jumped.append((turns, os.getrandom(8).hex()))


threading.Thread(target=watch, daemon=True).start()


@skill.tool()
def seen() -> dict:
    while not jumped:
        time.sleep(0.001)
    return {"turns": jumped[0][0], "chosen": jumped[0][1]}
'''


async def test_no_thread_of_the_skill_runs_in_a_clone_before_the_clone_is_made_unlike_its_twins(
    make_unit, cache, images, kernel_folder
):
    """A thread from the skill's import ran on in each clone until the clone's clock and its randomness were set.

    The thread counts its turns. If it stands still from the moment at which the template is saved until the clock is
    set, it has counted equally far in each clone.
    """
    unit = await make_unit(THREADED, name="twin")
    async with MicrovmBackend(home=cache, images=images, kernel_folder=kernel_folder) as backend:
        seen = []
        for _ in range(3):
            async with open_guest(backend, unit, on_step=lambda _: None) as sandbox:
                reply = await sandbox.run(
                    GuestRequest("seen", {}), deadline=time.monotonic() + PATIENCE_S, on_progress=lambda _: None
                )
                seen.append(reply.outcome.data)
    assert len({each["turns"] for each in seen}) == 1, seen
    assert len({each["chosen"] for each in seen}) == 3, seen
