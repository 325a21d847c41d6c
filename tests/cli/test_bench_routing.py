"""`silo bench routing`: its document, the same figures as the sets' own protocol, and an error if there are no sets."""

import json

import pytest

TOOLS = [
    {"id": "resize", "name": "resize", "description": "Make a picture smaller."},
    {
        "id": "sign",
        "name": "sign",
        "description": "Sign claims with a key.",
        "parameters": {"properties": {"claims": {}}},
    },
    {"id": "mail/send", "name": "send", "description": "Send an email.", "group": "mail", "category": "office"},
]
QUERIES = [
    *(
        {"query": f"make picture number {word} smaller", "relevant": ["resize"]}
        for word in ("one", "two", "three", "four", "five", "six")
    ),
    *(
        {"query": f"sign these claims for {name}", "relevant": ["sign"]}
        for name in ("ada", "bob", "eve", "mia", "tom", "zoe")
    ),
    {"query": "resize the picture and then email it", "relevant": ["resize", "mail/send"]},
    {"query": "quite something else", "relevant": ["mail/send"]},
]


@pytest.fixture
def sets(tmp_path):
    folder = tmp_path / "sets"
    write(folder / "small", TOOLS, QUERIES)
    return folder


def write(folder, tools, queries):
    folder.mkdir(parents=True)
    (folder / "tools.jsonl").write_text("".join(json.dumps(tool) + "\n" for tool in tools))
    (folder / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in queries))


def test_the_document_has_the_figures_of_each_backend_on_each_set(bare_silo, sets):
    found = bare_silo("bench", "routing", str(sets), "--scale", "20", "--ablations", "--json")
    assert found.status == 0
    document = found.json
    assert document["benchmark"] == "routing"
    assert document["sets"] == {"small": {"tools": 3, "requests": 14}}
    figures = document["backends"]["silo"]["small"]
    assert figures["recall@5"] == pytest.approx(13 / 14, abs=0.001)
    assert figures["recall@1"] == pytest.approx(12.5 / 14, abs=0.001)
    assert figures.keys() >= {"recall@10", "complete@5", "ndcg@5", "mrr", "ci95", "build_s", "p50_ms", "p95_ms"}
    assert document["ablations"].keys() >= {"all", "without the table", "without the rerank", "without clauses"}
    assert document["examples"]["small"]["requests"] == 4
    (scale,) = document["scales"]
    assert scale["tools"] == 20
    assert scale.keys() >= {"build_s", "start_s", "p50_ms", "p95_ms", "memory_mib"}
    assert document["figures"]["recall@5"]["holds"] is True


def test_the_text_shows_a_row_for_each_backend(bare_silo, sets):
    found = bare_silo("bench", "routing", str(sets), "--set", "small", "--limit", "5")
    assert found.status == 0
    assert found.out.startswith("recall@5")
    assert "small" in found.out
    assert "\nsilo " in found.out
    assert not bare_silo.home.exists(), "it touches nothing of the user's"


@pytest.mark.parametrize("damage", ["none", "broken", "unknown", "empty"])
def test_a_folder_without_good_sets_is_a_usage_error(bare_silo, tmp_path, damage):
    folder = tmp_path / "sets"
    folder.mkdir()
    if damage == "broken":
        write(folder / "small", TOOLS, QUERIES)
        (folder / "small" / "tools.jsonl").write_text("nonsense")
    elif damage == "unknown":
        write(folder / "small", TOOLS[:1], QUERIES)
    elif damage == "empty":
        write(folder / "small", TOOLS, [])
    found = bare_silo("bench", "routing", str(folder))
    assert found.status == 2
    assert "[usage]" in found.err
