"""Downloading from an index on the loopback interface: bounds, redirects, and who gets the credentials."""

import base64
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from silo.catalog.download import credentials, download, proxy_for
from silo.errors import DependencyUnavailable

pytestmark = pytest.mark.anyio


@pytest.fixture
def serve():
    """Start servers; each answers every request with what its function returns: status, headers, body."""
    servers = []

    def start(answer):
        seen = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                seen.append(dict(self.headers))
                status, headers, body = answer()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}", seen

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


async def test_a_file_comes_with_the_credentials_of_its_index(serve, tmp_path):
    address, seen = serve(lambda: (200, {}, b"data"))
    host = address.removeprefix("http://")
    environ = {"UV_DEFAULT_INDEX": f"http://me:p%40ss@{host}/simple"}
    await download(f"{address}/raw.tar.gz", tmp_path / "raw", environ)
    assert (tmp_path / "raw").read_bytes() == b"data"
    assert base64.b64decode(seen[0]["Authorization"].removeprefix("Basic ")) == b"me:p@ss"


async def test_credentials_do_not_follow_a_redirect(serve, tmp_path):
    other, seen_there = serve(lambda: (200, {}, b"data"))
    address, seen = serve(lambda: (302, {"Location": f"{other}/raw.tar.gz"}, b""))
    environ = {"UV_DEFAULT_INDEX": address.replace("http://", "http://me:pass@")}
    await download(f"{address}/raw.tar.gz", tmp_path / "raw", environ)
    assert "Authorization" in seen[0]
    assert "Authorization" not in seen_there[0]


@pytest.mark.parametrize("where", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
async def test_a_redirect_leads_to_the_web_only(serve, tmp_path, where):
    address, _ = serve(lambda: (302, {"Location": where}, b""))
    with pytest.raises(DependencyUnavailable, match="can't download raw"):
        await download(f"{address}/raw.tar.gz", tmp_path / "raw", {})


async def test_failures_say_what_to_do_without_credentials(serve, tmp_path):
    address, _ = serve(lambda: (401, {}, b""))
    environ = {"UV_DEFAULT_INDEX": address.replace("http://", "http://me:pass@")}
    with pytest.raises(DependencyUnavailable) as caught:
        await download(f"{address}/raw.tar.gz", tmp_path / "raw", environ)
    assert "Unauthorized" in caught.value.message
    assert "pass" not in caught.value.message
    assert "~/.netrc" in caught.value.hint


async def test_a_file_that_is_too_large_ends_the_download(serve, tmp_path):
    address, _ = serve(lambda: (200, {}, b"data"))
    with pytest.raises(DependencyUnavailable, match="more than 3 bytes"):
        await download(f"{address}/raw.tar.gz", tmp_path / "raw", {}, max_bytes=3)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"UV_DEFAULT_INDEX": "https://a:b@pypi.example/simple"}, ("a", "b")),
        ({"UV_DEFAULT_INDEX": "https://a:b@other.example/simple"}, None),
        ({"UV_DEFAULT_INDEX": "http://a:b@pypi.example/simple"}, None),
        ({"UV_DEFAULT_INDEX": "https://a:b@pypi.example:8443/simple"}, None),
        ({"UV_EXTRA_INDEX_URL": "https://x.example/s https://a:b@pypi.example/simple"}, ("a", "b")),
        (
            {
                "UV_INDEX": "corp=https://pypi.example/simple",
                "UV_INDEX_CORP_USERNAME": "a",
                "UV_INDEX_CORP_PASSWORD": "b%40",
            },
            ("a", "b%40"),
        ),
    ],
)
def test_only_the_index_of_the_same_origin_gives_credentials(tmp_path, environ, expected):
    url = urlsplit("https://pypi.example/files/raw.tar.gz")
    assert credentials(url, {"HOME": str(tmp_path), **environ}) == expected


def test_netrc_gives_credentials_for_its_host(tmp_path):
    (tmp_path / "netrc").write_text("machine pypi.example login a password b\n")
    (tmp_path / "netrc").chmod(0o600)
    url = urlsplit("https://pypi.example/raw.tar.gz")
    assert credentials(url, {"NETRC": str(tmp_path / "netrc")}) == ("a", "b")


@pytest.mark.parametrize(
    ("without", "proxy"),
    [
        ("", "http://p:1"),
        ("example", ""),
        (".example", ""),
        ("*", ""),
        ("ample", "http://p:1"),
        ("x, pypi.example", ""),
    ],
)
def test_proxies_are_those_of_the_variables(without, proxy):
    assert proxy_for("https", "pypi.example", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": without}) == proxy
