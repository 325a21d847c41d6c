from __future__ import annotations

import textwrap
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from silo.catalog.header import MAX_SCRIPT_BYTES, namespace_from, read_header, refuse_not_yet
from silo.errors import FeatureNotYet, HeaderInvalid
from silo.model import Isolation, SecretSpec

PYTHON = 'requires-python = ">=3.11"\n'


def script(toml: str, body: str = "print('body')\n") -> bytes:
    lines = "".join(f"# {line}".rstrip() + "\n" for line in textwrap.dedent(toml).splitlines())
    return f"# /// script\n{lines}# ///\n{body}".encode()


def read(toml: str, name: str = "demo"):
    return read_header(script(toml), name=name)


def refusal(data: bytes) -> HeaderInvalid:
    with pytest.raises(HeaderInvalid) as caught:
        read_header(data, name="demo", filename="demo/skill.py")
    assert caught.value.hint
    return caught.value


def test_a_full_header_is_read_as_it_is_written():
    header = read("""
        requires-python = ">=3.11"
        dependencies = ["httpx>=0.28", 'colorama; sys_platform == "win32"']

        [tool.silo]
        namespace = "github"
        description = "Issues."
        network = ["api.github.com", "*.example.org:8443"]
        memory_mib = 512
        timeout_s = 1.5
        require_approval = true
        min_isolation = "microvm"

        [tool.silo.secrets.GITHUB_TOKEN]
        host = "api.github.com"
        header = "Authorization"
        format = "Bearer {secret}"

        [tool.silo.secrets.A_KEY]
        description = "A key."

        [tool.ruff]
        line-length = 100
    """)
    assert header.namespace == "github"
    assert header.dependencies == ("httpx>=0.28", 'colorama; sys_platform == "win32"')
    assert header.network == ("api.github.com", "*.example.org:8443")
    assert (header.memory_mib, header.timeout_s, header.require_approval) == (512, 1.5, True)
    assert header.min_isolation is Isolation.MICROVM
    assert header.description == "Issues."
    assert list(header.secrets) == ["A_KEY", "GITHUB_TOKEN"]
    assert header.secrets["A_KEY"] == SecretSpec("A_KEY", deliver="stdin", description="A key.")
    assert header.secrets["GITHUB_TOKEN"] == SecretSpec(
        "GITHUB_TOKEN", deliver="inject", host="api.github.com", header="Authorization", format="Bearer {secret}"
    )


def test_the_defaults_are_the_safe_end():
    header = read(PYTHON)
    assert (header.network, dict(header.secrets), header.dependencies) == ((), {}, ())
    assert (header.memory_mib, header.timeout_s, header.min_isolation) == (256, 30.0, None)


def test_the_name_stands_in_for_a_missing_namespace():
    assert read(PYTHON, name="My-Skill").namespace == "my_skill"
    with pytest.raises(HeaderInvalid, match="'9lives' can't be one"):
        read(PYTHON, name="9lives")


def test_reading_a_header_never_runs_the_script(tmp_path: Path):
    trace = tmp_path / "ran"
    read_header(script(PYTHON, body=f"open({str(trace)!r}, 'w')\n"), name="demo")
    assert not trace.exists()


def test_a_script_that_python_cannot_parse_still_has_a_header():
    assert read_header(script(PYTHON, body="def (:\n"), name="demo").namespace == "demo"


def test_windows_line_ends_are_read_like_others():
    unix = script(PYTHON + 'dependencies = ["six"]\n')
    assert read_header(unix.replace(b"\n", b"\r\n"), name="demo") == read_header(unix, name="demo")


@pytest.mark.parametrize(
    ("toml", "message", "hint"),
    [
        ("[tool.silo]\nmemory_mb = 1", ":4: unknown key 'tool.silo.memory_mb'", "did you mean 'memory_mib'?"),
        ("[tool.silo]\ntimeout = 1", "unknown key 'tool.silo.timeout'", "did you mean 'timeout_s'?"),
        ('[tool.silo.secrets.KEY]\nhots = "x"', ":4: unknown key 'tool.silo.secrets.KEY.hots'", "'host'"),
        ("[tool.sillo]\nrequire_approval = true", ":3: [tool.sillo] is not silo's table", "did you mean [tool.silo]?"),
        ("[tool.Silo]", "[tool.Silo] is not silo's table", "did you mean [tool.silo]?"),
        ("[tool.silo-runtime]", "[tool.silo-runtime] is not silo's table", "did you mean [tool.silo]?"),
        ('[tool."silo "]', "is not silo's table", "did you mean [tool.silo]?"),
        ("[tool.slio]", "[tool.slio] is not silo's table", "did you mean [tool.silo]?"),
        ("dependency = []", ":3: unknown key 'dependency'", "'dependencies'"),
        ("[tool.silo]\n\nmemory_mib = 63", ":5: 'tool.silo.memory_mib'", "between 64 and 8192"),
        ("[tool.silo]\nmemory_mib = 8193", "less than or equal to 8192", "256"),
        ("[tool.silo]\nmemory_mib = true", "valid integer", "256"),
        ("[tool.silo]\nmemory_mib = '256'", "valid integer", "256"),
        ("[tool.silo]\ntimeout_s = 0", "greater than or equal to 0.1", "30"),
        ("[tool.silo]\ntimeout_s = nan", "tool.silo.timeout_s", "30"),
        ("[tool.silo]\ntimeout_s = 3601", "less than or equal to 3600", "30"),
        ("[tool.silo]\nrequire_approval = 1", "valid boolean", ""),
        ("[tool.silo]\nmin_isolation = 'vm'", "'namespace', 'gvisor' or 'microvm'", "floor"),
        ("[tool.silo]\nnamespace = 'silo'", "is reserved", "github"),
        ("[tool.silo]\nnamespace = 'a__b'", "may not hold '__'", "github"),
        ("[tool.silo]\nnamespace = 'Github'", "a-z", "github"),
        (f"[tool.silo]\nnamespace = '{'a' * 33}'", "1 to 32", "github"),
        ("[tool.silo]\nnetwork = ['https://example.org']", "no scheme", "network ="),
        ("[tool.silo]\nnetwork = ['*']", "host name", "network ="),
        ("[tool.silo.secrets.key]\n", "A-Z", "environment variable"),
        ("[tool.silo.secrets.KEY]\ndeliver = 'env'", "'stdin' or 'inject'", "stdin"),
        ("[tool.silo.secrets.KEY]\ndeliver = 'inject'", "needs both", ""),
        ("[tool.silo.secrets.KEY]\nhost = 'a.example'", "give both", ""),
        (
            "[tool.silo.secrets.KEY]\nhost = 'a.example'\nheader = 'X-Key'\ndeliver = 'stdin'",
            "belong to deliver = 'inject'",
            "",
        ),
        ("[tool.silo.secrets.KEY]\nhost = 'a.example'\nheader = 'A: b'", "HTTP header", ""),
        ("[tool.silo.secrets.KEY]\nhost = 'a.example'\nheader = 'A'\nformat = 'Bearer'", "{secret}", ""),
        ("[tool.uv]\nindex-url = 'https://example.org'", ":3: '[tool.uv]' is refused", "the user"),
        ("[[tool.uv.index]]\nurl = 'https://example.org'", "'[tool.uv]' is refused", "the user"),
        ("dependencies = ['six @ file:///tmp/six']", ":3: 'dependencies.0': 'six' comes from an address", "PEP 508"),
        ("dependencies = ['git+https://example.org/six']", "not a requirement", "PEP 508"),
        ("dependencies = ['./six']", "not a requirement", "PEP 508"),
        ("dependencies = ['six=1']", "not a requirement", "PEP 508"),
        ("dependencies = ['Silo_Runtime']", "not a dependency", "PEP 508"),
        ("dependencies = 'six'", "valid list", "PEP 508"),
        ("tool = 1", "'tool'", ""),
        ("[tool]\nsilo = 1", "tool.silo", ""),
        ("a = [", "header is not TOML", "toml.io"),
        ("a = 1\na = 2", ":4: the header is not TOML", "toml.io"),
        ("a = " + "[" * 5000, "header is not TOML", "toml.io"),
    ],
)
def test_a_wrong_header_is_refused_with_its_line_and_a_hint(toml: str, message: str, hint: str):
    error = refusal(script(PYTHON + toml))
    assert error.message.startswith("demo/skill.py:")
    assert message in error.message
    assert hint in error.hint


@pytest.mark.parametrize(
    ("toml", "message"),
    [("", "'requires-python' is missing"), ('requires-python = "3.11 or so"', "version specifier"),
     ('requires-python = ""', "version specifier")],
)  # fmt: skip
def test_requires_python_must_be_there_and_be_one(toml: str, message: str):
    assert message in refusal(script(toml or "dependencies = []")).message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"print(1)\n", "has no header"),
        (b"", "has no header"),
        (b"#/// script\n# x = 1\n# ///\n", ":1: the header that starts here is not one"),
        (b"# /// script\n# x = 1\nprint()\n", "is not one"),
        (script(PYTHON) + script(PYTHON), ":5: a second header"),
        (b"\xef\xbb\xbf" + script(PYTHON), "byte order mark"),
        (b"# -*- coding: latin-1 -*-\n" + script(PYTHON), "not UTF-8"),
        (script(PYTHON) + b"x = '\xff'\n", "not UTF-8"),
        (script(PYTHON) + b"\0", ":5: the script holds a NUL byte"),
        (script(PYTHON) + b"# a comment\rprint()\n", ":5: a carriage return"),
        (script(PYTHON) + b"#" * MAX_SCRIPT_BYTES, "more than 1048576"),
        (b"# /// a\n" * 100_000, "open a block"),
    ],
)
def test_a_script_without_exactly_one_readable_header_is_refused(data: bytes, message: str):
    assert message in refusal(data).message


def test_a_block_of_another_type_is_no_second_header():
    other = b"# /// pyproject\n# x = 1\n# ///\n\n"
    assert read_header(other + script(PYTHON), name="demo").requires_python == ">=3.11"


def test_network_is_valid_but_not_in_this_version():
    header = read(PYTHON + "[tool.silo]\nnetwork = ['api.example.org']")
    with pytest.raises(FeatureNotYet, match=r"api\.example\.org") as caught:
        refuse_not_yet(header)
    assert caught.value.code == "not-in-this-version"


def test_an_injected_secret_is_valid_but_not_in_this_version():
    header = read(PYTHON + "[tool.silo.secrets.KEY]\nhost = 'a.example'\nheader = 'X-Key'")
    with pytest.raises(FeatureNotYet, match=r"'KEY' is to be injected into requests to a\.example") as caught:
        refuse_not_yet(header)
    assert 'deliver = "stdin"' in caught.value.hint


def test_a_header_with_secrets_over_stdin_alone_is_not_refused():
    refuse_not_yet(read(PYTHON + "[tool.silo.secrets.KEY]\n"))


@given(st.binary(max_size=2000))
@example(b"# /// script\n#\n# ///")
def test_any_bytes_are_a_header_or_refused(data: bytes):
    with suppress(HeaderInvalid):
        assert read_header(data, name="demo").namespace


toml_text = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=60)
lines = st.lists(
    st.one_of(
        st.sampled_from(
            ["[tool.silo]", "[tool.silo.secrets.A]", "[tool]", "network = []", "x = {}", 'deliver = "inject"', PYTHON]
        ),
        st.builds("{} = {}".format, st.sampled_from(["memory_mib", "timeout_s", "secrets", "a.b", "namespace"]),
                  st.one_of(st.integers().map(str), toml_text.map(repr), st.floats().map(repr))),
        toml_text.map(lambda one: one.replace("\n", " ")),
    ),
    max_size=8,
)  # fmt: skip


@given(lines)
def test_any_header_text_is_within_the_bounds_or_refused(parts: list[str]):
    data = ("# /// script\n" + "".join(f"# {part.strip()}\n" for part in [PYTHON, *parts]) + "# ///\n").encode()
    try:
        header = read_header(data, name="demo")
    except HeaderInvalid:
        return
    assert 64 <= header.memory_mib <= 8192
    assert 0.1 <= header.timeout_s <= 3600


@given(st.from_regex(r"[a-z][a-z0-9_]{0,31}", fullmatch=True))
def test_a_namespace_is_already_what_a_name_becomes(name: str):
    assert namespace_from(name) == name


def test_examples_are_read_by_tool():
    header = read(
        PYTHON
        + """
        [tool.silo.tools.sign]
        examples = ["sign a token", "Token für Anna ausstellen"]
        [tool.silo.tools.verify]
        """.replace("        ", "")
    )
    assert header.examples == {"sign": ("sign a token", "Token für Anna ausstellen")}


@pytest.mark.parametrize(
    ("table", "complaint", "hint"),
    [
        ('[tool.silo.tools.sign]\nexample = ["x"]', "unknown key 'tool.silo.tools.sign.example'", "'examples'"),
        ('[tool.silo.tools.sign]\nexamples = "x"', "'tool.silo.tools.sign.examples'", "up to 10 requests"),
        (f"[tool.silo.tools.sign]\nexamples = {['x'] * 11}", "at most 10 items", "up to 10 requests"),
        (f"[tool.silo.tools.sign]\nexamples = ['{'x' * 201}']", "at most 200 characters", "up to 10 requests"),
        ("[tool.silo.tools.sign]\nexamples = [' ']", "a request in words", "up to 10 requests"),
        ('[tool.silo.tools.sign]\nexamples = ["a\\nb"]', "one line of printable", "up to 10 requests"),
        ('[tool.silo.tools.sign]\nexamples = ["a\u200bb"]', "one line of printable", "up to 10 requests"),
        ('[tool.silo.tools.Sign]\nexamples = ["x"]', "a tool's name is", "name the function"),
        ('[tool.silo.tool.sign]\nexamples = ["x"]', "unknown key 'tool.silo.tool'", "'tools'"),
    ],
)
def test_examples_that_are_none_are_refused_with_the_place(table, complaint, hint):
    error = refusal(script(f"{PYTHON}{table}\n"))
    assert complaint in error.message
    assert error.message.startswith("demo/skill.py:")
    assert hint in error.hint
