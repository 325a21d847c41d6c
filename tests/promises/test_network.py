"""Promise 2, before there is any egress: a call reaches nothing, by address, by name, or without the network."""

import contextlib
import secrets
import socket

import pytest

from silo.model import Isolation

pytestmark = pytest.mark.anyio


class Listener:
    """Sockets of the host that note every connection."""

    def __init__(self, tmp_path):
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.everywhere = socket.create_server(("0.0.0.0", 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.abstract = f"silo-test-{secrets.token_hex(8)}"
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind(b"\0" + self.abstract.encode())
        self.unix.listen()
        self.path = tmp_path / "socket"
        self.named = socket.socket(socket.AF_UNIX)
        self.named.bind(str(self.path))
        self.named.listen()
        self.sockets = (self.tcp, self.everywhere, self.udp, self.unix, self.named)
        for opened in self.sockets:
            opened.setblocking(False)

    def visitors(self):
        found = []
        for opened in self.sockets:
            with contextlib.suppress(BlockingIOError):
                if opened is self.udp:
                    found.append(opened.recv(100))
                else:
                    opened.accept()[0].close()
                    found.append(opened.getsockname())
        return found


@pytest.fixture
def listener(tmp_path):
    listener = Listener(tmp_path)
    yield listener
    for opened in listener.sockets:
        opened.close()


def test_the_listener_notices_a_visitor(listener):
    """Without this, a listener that never notices a connection would prove anything."""
    with socket.create_connection(listener.tcp.getsockname()), socket.socket(socket.AF_UNIX) as joined:
        joined.connect(b"\0" + listener.abstract.encode())
        assert len(listener.visitors()) == 2


async def test_nothing_can_be_reached(attack, listener, backend):
    port, everywhere = listener.tcp.getsockname()[1], listener.everywhere.getsockname()[1]
    targets = [
        ["127.0.0.1", port], ["127.0.0.1", listener.udp.getsockname()[1]], ["localhost", port], ["::1", port],
        ["10.0.2.2", everywhere], ["10.0.2.3", 53], ["169.254.169.254", 80], ["1.1.1.1", 53], ["192.168.0.1", 80],
    ]  # fmt: skip
    targets += [[address, everywhere] for address in _own_addresses()]
    seen = await attack(
        "network",
        targets=targets,
        abstract=[listener.abstract, str(listener.path), "/run/dbus/system_bus_socket", "/var/run/docker.sock"],
        names=["example.com", socket.gethostname(), "localhost.localdomain"],
    )
    assert set(seen.pop("interfaces")) <= {"lo"}
    assert seen.pop("routes") == []
    families = seen.pop("families", [])
    assert families == [] or backend.isolation is Isolation.MICROVM
    assert {what for what, outcome in seen.items() if outcome == "done"} == set()
    assert listener.visitors() == []


async def test_sockets_that_no_namespace_holds_back_are_refused(attack, backend):
    """A vsock would reach the host's hypervisor; netlink and packet sockets its kernel (in a microVM, the guest's)."""
    seen = await attack("network", targets=[], abstract=[], names=[])
    assert seen["vsock host"] != "done"
    if backend.isolation is Isolation.NAMESPACE:
        assert "families" not in seen


def _own_addresses():
    with contextlib.suppress(OSError):
        return sorted({found[4][0] for found in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)})
    return []
