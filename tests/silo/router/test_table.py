"""The table of meanings: similar words are close, and a damaged file switches only the table off."""

import numpy as np
import pytest

from silo.router import table as module
from silo.router.documents import ToolDocument
from silo.router.ranker import Ranker
from silo.router.rerank import MODEL, RerankModelBroken, load_model
from silo.router.settings import RouterSettings
from silo.router.table import TABLE, TableBroken, TokenTable
from silo.router.wordpiece import WordPieces

TABLE_READ = TokenTable.load()


def cosine(one, other):
    vectors, scales = TABLE_READ.embed_requests([one, other])
    return float(vectors[0] @ vectors[1] * scales[0] * scales[1])


def test_what_means_the_same_is_nearer_than_what_does_not():
    assert cosine("picture", "image") > cosine("picture", "invoice")
    assert cosine("make a photo smaller", "resize an image") > cosine("make a photo smaller", "send an email")
    assert cosine("doctor appointment", "medical visit") > cosine("doctor appointment", "stock price")


def test_a_text_without_a_known_piece_has_no_vector():
    vectors, scales = TABLE_READ.embed_requests(["\u16a0\u16a1", "", "picture"])
    assert not vectors[:2].any()
    assert scales[:2].tolist() == [0, 0]
    assert vectors[2].any()


def test_the_table_is_small():
    assert TABLE.stat().st_size < 9 * 2**20


def test_words_are_cut_as_the_teacher_cuts_them():
    """The examples are those of BERT's own documentation, and one with accents."""
    pieces = WordPieces(["un", "##aff", "##able", "runn", "##ing", "cafe"])
    assert pieces.encode(["unaffable"]) == [0, 1, 2]
    assert pieces.encode(["RUNNING", "Café"]) == [3, 4, 5]
    assert pieces.encode(["xyz", "", "un" * 50]) == []


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "shape", "kind", "member"])
def test_a_broken_table_is_told_apart(tmp_path, damage):
    path = tmp_path / "table.npz"
    with np.load(TABLE) as file:
        parts = {name: file[name] for name in file.files}
    if damage == "shape":
        np.savez(path, **{**parts, "vectors": parts["vectors"][1:]})
    elif damage == "kind":
        np.savez(path, **{**parts, "scales": parts["scales"].astype(str)})
    elif damage == "member":
        np.savez(path, **{name: part for name, part in parts.items() if name != "vocabulary"})
    elif damage == "cut":
        path.write_bytes(TABLE.read_bytes()[:100_000])
    elif damage == "empty":
        path.write_bytes(b"")
    with pytest.raises(TableBroken, match=r"table\.npz"):
        TokenTable.load(path)


def test_without_a_table_words_still_find_and_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(TokenTable, "load", classmethod(lambda cls: _broken()))
    ranker = Ranker.build(
        [ToolDocument("a.b", "b", "Convert currencies."), ToolDocument("a.c", "c", "Bake.")], settings=RouterSettings()
    )
    assert [hit.id for hit in ranker.search(["convert a currency"], limit=5)] == ["a.b"]
    assert ranker.notes == ("the semantic part is off: it is gone",)
    assert module.TABLE == TABLE


def _broken():
    raise TableBroken("it is gone")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"weights": {}}', "nonsense"])
def test_a_broken_model_is_told_apart(tmp_path, text):
    path = tmp_path / "rerank.json"
    path.write_text(text)
    with pytest.raises(RerankModelBroken, match=r"rerank\.json"):
        load_model(path)


def test_a_coefficient_that_is_no_number_is_not_believed(tmp_path):
    path = tmp_path / "rerank.json"
    path.write_text(MODEL.read_text().replace('"bias": -', '"bias": NaN, "was": -'))
    with pytest.raises(RerankModelBroken):
        load_model(path)
