"""The built-in skill `pdf`, its functions called directly on documents that pypdf writes here."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pypdf import PdfWriter
from pypdf.generic import DictionaryObject, NameObject, StreamObject

from silo import AgentResponse, File
from silo.sdk.context import open_call


@pytest.fixture(scope="module")
def skill(load_script):
    return load_script("skills/pdf/skill.py")


def write(texts: list[str], *, encrypt: dict[str, str] | None = None, **info: str) -> File:
    """Return a document with a page for each text."""
    writer = PdfWriter()
    names = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica"}
    font = DictionaryObject({NameObject(key): NameObject(value) for key, value in names.items()})
    for text in texts:
        page = writer.add_blank_page(200, 100)
        fonts = DictionaryObject({NameObject("/F1"): font})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
        content = StreamObject()
        content.set_data(f"BT /F1 12 Tf 10 50 Td ({text}) Tj ET".encode())
        page[NameObject("/Contents")] = writer._add_object(content)
    writer.add_metadata({f"/{key}": value for key, value in info.items()})
    if encrypt is not None:
        writer.encrypt(**encrypt)
    stream = io.BytesIO()
    writer.write(stream)
    return File(stream.getvalue(), "application/pdf", "test.pdf")


def error_of(response) -> str:
    assert isinstance(response, AgentResponse)
    assert response.status == "error"
    return response.error_message


def test_text_comes_back_page_by_page(skill):
    assert skill.text(write(["first page", "second page"])) == {
        "page_count": 2,
        "pages": [{"page": 1, "text": "first page"}, {"page": 2, "text": "second page"}],
        "truncated": False,
        "note": "",
    }


@pytest.mark.parametrize(
    ("pages", "numbers"),
    [
        ("", [1, 2, 3, 4, 5]),
        ("3", [3]),
        ("2-4", [2, 3, 4]),
        ("4-", [4, 5]),
        (" 5 , 1 - 2 ", [5, 1, 2]),
        ("1-3,2-4", [1, 2, 3, 4]),
        ("4-9", [4, 5]),
    ],
)
def test_pages_selects_pages_in_the_order_given(skill, pages, numbers):
    document = write([f"text {n}" for n in range(1, 6)])
    assert [page["page"] for page in skill.text(document, pages)["pages"]] == numbers


@pytest.mark.parametrize("pages", ["0", "6", "3-2", "6-", "a", "1;2", "-3", "1--2", "1,", "٣", "9999999999"])
def test_pages_that_are_none_are_refused_with_the_right_form(skill, pages):
    text = error_of(skill.text(write(["x"] * 5), pages))
    assert "pages" in text
    assert "1-5" in text


@given(spec=st.text("0123456789-, ", max_size=12), count=st.integers(1, 30))
def test_no_selection_yields_a_page_that_is_not_there_or_one_twice(skill, spec, count):
    try:
        numbers = skill._page_numbers(spec, count)
    except skill._RefusedError:
        return
    assert set(numbers) <= set(range(1, count + 1))
    assert len(numbers) == len(set(numbers)) > 0


def test_progress_is_told_for_each_page(skill):
    told = []
    with open_call(secrets={}, emit=lambda *report: told.append(report)):
        skill.text(write(["a", "b"]))
    assert told == [(0, 2, "page 1"), (1, 2, "page 2")]


def test_more_pages_than_a_call_reads_are_cut_and_the_note_tells_how_to_go_on(skill):
    document = write(["x"] * 203)
    result = skill.text(document)
    assert len(result["pages"]) == 200
    assert result["truncated"] is True
    assert "201-" in result["note"]
    assert [page["page"] for page in skill.text(document, "201-")["pages"]] == [201, 202, 203]


def test_more_text_than_an_answer_holds_is_cut_within_the_page(skill):
    result = skill.text(write(["a" * 300_000, "b" * 300_000, "c"]))
    assert [len(page["text"]) for page in result["pages"]] == [300_000, 100_000]
    assert "within page 2" in result["note"]


def test_pages_without_text_are_said_to_be_scanned(skill):
    result = skill.text(write(["", ""]))
    assert "scanned" in result["note"]
    assert result["truncated"] is False


def test_metadata_tells_fields_dates_and_the_size_of_the_page(skill):
    info = {"Title": "Bericht é", "Author": "A", "CreationDate": "D:20240102030405+01'00'", "Company": "ACME"}
    assert skill.metadata(write(["x"], **info)) == {
        "title": "Bericht é",
        "author": "A",
        "subject": None,
        "keywords": None,
        "creator": None,
        "producer": "pypdf",
        "created_at": "2024-01-02T03:04:05+01:00",
        "modified_at": None,
        "page_count": 1,
        "page_width_pt": 200.0,
        "page_height_pt": 100.0,
        "pdf_version": "1.3",
        "is_encrypted": False,
        "custom": {"Company": "ACME"},
    }


def test_a_date_that_is_none_is_left_out(skill):
    assert skill.metadata(write(["x"], CreationDate="yesterday"))["created_at"] is None


def test_long_and_many_fields_are_cut(skill):
    result = skill.metadata(write(["x"], Title="t" * 10_000, **{f"Field{n}": "v" for n in range(80)}))
    assert len(result["title"]) == 2_000
    assert len(result["custom"]) == 50


@pytest.mark.parametrize("algorithm", ["RC4-40", "RC4-128", "AES-128", "AES-256"])
def test_a_document_that_only_restricts_printing_is_read(skill, algorithm):
    document = write(["hello"], encrypt={"user_password": "", "owner_password": "o", "algorithm": algorithm})
    assert skill.text(document)["pages"] == [{"page": 1, "text": "hello"}]
    assert skill.metadata(document)["is_encrypted"] is True


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-256"])
def test_a_document_with_a_password_is_an_error_that_asks_for_no_password(skill, algorithm):
    document = write(["hello"], encrypt={"user_password": "pw", "algorithm": algorithm})
    for response in (skill.text(document), skill.metadata(document)):
        assert "needs a password" in error_of(response)


def test_what_is_no_pdf_is_said_to_be_none(skill):
    assert "empty" in error_of(skill.text(File(b"")))
    assert "not a PDF" in error_of(skill.text(File(b"PK\x03\x04")))
    assert "not a PDF" in error_of(skill.metadata(File(b" " * 2000 + write(["x"]).data)))


@pytest.mark.parametrize("keep", [5, 20, 200, 600])
def test_a_document_that_was_cut_off_is_said_to_be_damaged(skill, keep):
    document = File(write(["hello"] * 3).data[:keep])
    assert "damaged" in error_of(skill.text(document))
    assert "damaged" in error_of(skill.metadata(document))


def test_a_damaged_page_does_not_cost_the_others(skill):
    writer = PdfWriter(clone_from=io.BytesIO(write(["one", "two"]).data))
    content = StreamObject()
    content.set_data(b"junk")
    content[NameObject("/Filter")] = NameObject("/NoSuchFilter")
    writer.pages[0][NameObject("/Contents")] = writer._add_object(content)
    stream = io.BytesIO()
    writer.write(stream)
    result = skill.text(File(stream.getvalue()))
    assert result["pages"][-1] == {"page": 2, "text": "two"}
    assert "page 1" in result["note"]
    assert result["truncated"] is True


def test_a_page_that_unpacks_to_gigabytes_is_left_out(skill):
    writer = PdfWriter(clone_from=io.BytesIO(write(["one", "two"]).data))
    bomb = StreamObject()
    bomb.set_data(b" " * 100_000_000)
    writer.pages[0][NameObject("/Contents")] = writer._add_object(bomb.flate_encode())
    stream = io.BytesIO()
    writer.write(stream)
    assert len(stream.getvalue()) < 200_000
    result = skill.text(File(stream.getvalue()))
    assert result["pages"] == [{"page": 2, "text": "two"}]
    assert "limit" in result["note"]


def test_a_page_tree_that_contains_itself_comes_to_an_end(skill):
    data = write(["one"]).data
    assert b"/Kids" in data
    looped = data.replace(b"/Kids [ 4 0 R ]", b"/Kids [ 1 0 R ]").replace(b"/Kids [\n4 0 R\n]", b"/Kids [\n1 0 R\n]")
    assert looped != data
    result = skill.text(File(looped))
    assert isinstance(result, AgentResponse) or result["page_count"] <= 1


@settings(max_examples=80, deadline=None)
@given(position=st.integers(0, 10_000), junk=st.binary(min_size=1, max_size=12))
def test_no_damage_makes_a_tool_raise(skill, position, junk):
    data = write(["hello", "world"], Title="t").data
    position %= len(data)
    document = File(data[:position] + junk + data[position + len(junk) :])
    for result in (skill.text(document), skill.metadata(document)):
        assert isinstance(result, dict) or error_of(result)


def test_the_warmup_may_run_again(skill):
    skill.warm()
    skill.warm()
