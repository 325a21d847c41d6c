import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from silo_vault.transfer import MAX_ENTRIES, Entry, Found, SourceUnreadable, read_dotenv
from silo_vault.transfer import entry as entry_module


def values(text: str) -> dict[str, str]:
    """Return the entries. Nothing may be skipped."""
    found = read_dotenv(text)
    assert found.skipped == ()
    return {entry.name: entry.value for entry in found.entries}


def flaws(text: str) -> list[tuple[str, str]]:
    return [(skipped.where, skipped.reason) for skipped in read_dotenv(text).skipped]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("KEY=value", "value"),
        ("KEY=value\n", "value"),
        ("export KEY=value", "value"),
        ("  export\tKEY = value  ", "value"),
        ("KEY=two words", "two words"),
        ("KEY=value # comment", "value"),
        ("KEY=value\t# comment", "value"),
        ("KEY=value#no-comment", "value#no-comment"),
        ("KEY=#value", "#value"),
        ("KEY=it's", "it's"),
        ('KEY=a"b"', 'a"b"'),
        (r"KEY=C:\new", r"C:\new"),
        (r"KEY=a\$HOME", "a$HOME"),
        ("KEY=a$5 costs $", "a$5 costs $"),
        ("KEY=postgres://u:p@h/db?a=b", "postgres://u:p@h/db?a=b"),
        ("KEY='single \\n $HOME # \"'", 'single \\n $HOME # "'),
        ("KEY='two\nlines'", "two\nlines"),
        ('KEY="two\nlines"  # comment', "two\nlines"),
        ('KEY="two\r\nlines"\r\n', "two\nlines"),
        (r'KEY="\n\t\r\"\\\$HOME"', '\n\t\r"\\$HOME'),
        (r'KEY="\d\'"', r"\d\'"),
        ('KEY="$5 and $"', "$5 and $"),
        ('KEY=" padded "', " padded "),
        ("KEY='# no comment'", "# no comment"),
        ("\ufeffKEY=value", "value"),
        ("KEY=Grüße", "Grüße"),
        ("KEY=a\u2028b\x0bc", "a\u2028b\x0bc"),
        ("# comment\n\n   # another\nKEY=value\n\t\n#", "value"),
        ("#KEY=other\nKEY=value", "value"),
    ],
)
def test_a_value_is_read_as_documented(text, value):
    assert values(text) == {"KEY": value}


def test_entries_keep_the_order_of_the_file_and_have_no_namespace():
    assert read_dotenv("B=1\r\nA=2\r\nexport=3\r\ndb.pass-word=4").entries == (
        Entry("", "B", "1"),
        Entry("", "A", "2"),
        Entry("", "EXPORT", "3"),
        Entry("", "DB_PASS_WORD", "4"),
    )


@pytest.mark.parametrize("text", ["", "\n", "\ufeff", "# comment", " \t\r\n\r\n"])
def test_a_file_without_assignments_holds_nothing(text):
    assert read_dotenv(text) == Found((), ())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("KEY=", "is empty"),
        ("KEY= # comment", "is empty"),
        ("KEY=''", "is empty"),
        ('KEY=""', "is empty"),
        ("KEY=$HOME/x", "not expanded"),
        ("KEY=a${HOME}", "not expanded"),
        ("KEY=$(cat file)", "not expanded"),
        ('KEY="${HOME:-x}"', "not expanded"),
        ('KEY="a $HOME"', "not expanded"),
        (r'KEY="\\$HOME"', "not expanded"),
        (r"KEY=a\\$HOME", "not expanded"),
        ("KEY=pa$$word", "not expanded"),
        ("KEY", "not an assignment"),
        ("export KEY", "not an assignment"),
        ("KEY: value", "not an assignment"),
        ("=value", "not an assignment"),
        ("1KEY=value", "not an assignment"),
        ("'KEY'=value", "not an assignment"),
        ("_KEY=value", "its name can't be"),
        ("KEY='a'b", "after its closing quote"),
        ("KEY='a'#b", "after its closing quote"),
        ("KEY='it'\\''s'", "after its closing quote"),
        ("KEY=`cmd`", "put it in quotes"),
        ("KEY==", "put it in quotes"),
        ("KEY=a\rb", "carriage return"),
        ("KEY='a\0'", "NUL"),
        ("KEY=" + "x" * (2**20 + 1), "1,048,576 are allowed"),
    ],
)
def test_what_has_no_certain_value_is_skipped_and_the_next_line_is_read(text, reason):
    found = read_dotenv(f"\n{text}\nNEXT=1")
    assert found.entries == (Entry("", "NEXT", "1"),)
    assert [skipped.where for skipped in found.skipped] == ["line 2"]
    assert reason in found.skipped[0].reason


def test_lines_are_counted_through_values_of_several_lines():
    assert [where for where, _ in flaws("A='1\n2\n3'\nbroken\nB=\"\n\"\n\nbroken\r\nC=\r\n")] == [
        "line 4",
        "line 8",
        "line 9",
    ]


@pytest.mark.parametrize("quote", ["'", '"'])
def test_nothing_is_read_behind_a_quote_that_is_never_closed(quote):
    """The lines of a private key must not become names."""
    found = read_dotenv(f"A=1\nKEY={quote}-----BEGIN\nMIIEabc=\nx=y\n")
    assert found.entries == (Entry("", "A", "1"),)
    assert [(each.where, each.reason) for each in found.skipped] == [
        ("line 2", "its quote is never closed; nothing from here on was read")
    ]


def test_the_last_of_two_assignments_counts_even_if_it_is_skipped():
    found = read_dotenv("A=1\nB=1\nA=2\nB=\n")
    assert found.entries == (Entry("", "A", "2"),)
    assert [each.where for each in found.skipped] == ["line 1", "line 2", "line 4"]
    assert found.skipped[0].reason == "line 3 sets it again, and the last one counts"


def test_keys_that_become_one_name_are_both_skipped():
    found = read_dotenv("db-key=1\nDB_KEY=2\nOTHER=3")
    assert found.entries == (Entry("", "OTHER", "3"),)
    assert [each.where for each in found.skipped] == ["line 1", "line 2"]


def test_an_unquoted_private_key_gives_no_entry_but_its_first_line():
    """This mistake happens. The rest of the key must not become names or values."""
    found = read_dotenv("KEY=-----BEGIN PRIVATE KEY-----\nMIIEvQ+x/y\nqrstuv==\nabcdef=\n-----END PRIVATE KEY-----\n")
    assert [entry.name for entry in found.entries] == ["KEY"]
    assert [each.where for each in found.skipped] == ["line 2", "line 3", "line 4", "line 5"]


def test_too_many_lines_and_too_long_texts_are_refused():
    with pytest.raises(SourceUnreadable, match="more than 100000"):
        read_dotenv("A=1\n" * (MAX_ENTRIES + 1))
    assert entry_module.MAX_SOURCE_BYTES == 64 * 1024 * 1024
    with pytest.raises(SourceUnreadable, match="longer than"):
        read_dotenv("#" * (entry_module.MAX_SOURCE_BYTES + 1))


@pytest.mark.parametrize(
    "text",
    [
        "A" * 2_000_000,
        " " * 2_000_000,
        "A=" + " " * 2_000_000,
        'A="' + "\\n" * 500_000,
        "A='\n" * 99_000,
        "A=" + "\\" * 2_000_000,
        "A=" + "$ " * 500_000,
        "A=" + " #" * 500_000,
        'A="' + "$A" * 300_000,
    ],
    ids=range(9),
)
def test_no_text_takes_long(text):
    began = time.thread_time()
    read_dotenv(text)
    assert time.thread_time() - began < 60.0  # if each character were compared with all before, hours


ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r", '"': '\\"', "\\": "\\\\", "$": "\\$"}


def quoted(value: str, *, newline_as_it_is: bool) -> str:
    """Write any value in double quotes, like programs that write such files."""
    kept = {"\n", "\t"} if newline_as_it_is else set()
    return '"' + "".join(char if char in kept else ESCAPES.get(char, char) for char in value) + '"'


storable = st.text(
    st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from("\n\r\t\"'\\$#= {`"),
    min_size=1,
    max_size=60,
)


@given(
    st.dictionaries(st.from_regex("[A-Z][A-Z0-9_]{0,9}", fullmatch=True), storable, max_size=5),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "export "]),
)
def test_whatever_is_written_in_double_quotes_is_read_back(secrets, as_it_is, line_end, export):
    lines = [f"{export}{key}={quoted(value, newline_as_it_is=as_it_is)} # {key}" for key, value in secrets.items()]
    assert values(line_end.join(lines)) == secrets


@given(storable.filter(lambda value: "'" not in value and "\r" not in value))
def test_whatever_has_no_single_quote_is_read_back_out_of_single_quotes(value):
    assert values(f"KEY='{value}'\nNEXT=1") == {"KEY": value, "NEXT": "1"}


@settings(max_examples=300)
@given(st.text(st.sampled_from("AB=\n\r\t\"'\\$#{ `é\0_-.") | st.characters(), max_size=80))
def test_any_text_at_all_is_read_without_an_error_and_each_line_is_named_once(text):
    found = read_dotenv(text)
    lines = [int(skipped.where.removeprefix("line ")) for skipped in found.skipped]
    assert lines == sorted(set(lines))
    assert len({entry.name for entry in found.entries}) == len(found.entries)
    assert all(line <= text.count("\n") + 1 for line in lines)
