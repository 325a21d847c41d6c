"""The built-in skill `table`, its functions called directly."""

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo import AgentResponse, File

SALES = File(
    b"region,day,amount\nnorth,2024-01-01,10.5\nsouth,2024-01-02,20\nnorth,2024-01-03,\n", "text/csv", "sales.csv"
)


@pytest.fixture(scope="module")
def skill(load_script):
    return load_script("skills/table/skill.py")


def error_of(response) -> str:
    assert isinstance(response, AgentResponse)
    assert response.status == "error"
    return response.error_message


def test_a_query_groups_and_sorts_the_rows_of_a_csv_file(skill):
    result = skill.query(SALES, "SELECT region, sum(amount) AS total FROM data GROUP BY region ORDER BY total DESC")
    assert result == {
        "columns": [{"name": "region", "type": "VARCHAR"}, {"name": "total", "type": "DOUBLE"}],
        "rows": [{"region": "south", "total": 20.0}, {"region": "north", "total": 10.5}],
        "row_count": 2,
        "truncated": False,
        "note": "",
    }


@pytest.mark.parametrize("to", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_each_format_that_convert_writes_is_read_back_with_the_same_rows(skill, to):
    converted = skill.convert(SALES, to)
    (file,) = converted.files
    assert converted.raw_data == {"name": f"sales.{to}", "rows": 3, "size_bytes": file.size, "from": "csv", "to": to}
    assert file.name == f"sales.{to}"
    query = "SELECT region, day::DATE AS day, amount::DOUBLE AS amount FROM data"
    # By its name, by its media type, and by its first bytes alone (TSV is a kind of CSV there).
    for given_file in (file, File(file.data, file.media_type), File(file.data)):
        assert skill.query(given_file, query)["rows"] == skill.query(SALES, query)["rows"]


def test_convert_takes_only_what_its_query_selects(skill):
    (file,) = skill.convert(SALES, "json", "SELECT region FROM data WHERE amount > 15").files
    assert json.loads(file.data) == [{"region": "south"}]
    assert file.media_type == "application/json"


def test_describe_tells_columns_types_rows_and_a_sample(skill):
    described = skill.describe(SALES)
    assert described["format"] == "csv"
    assert described["row_count"] == 3
    assert [column["type"] for column in described["columns"]] == ["VARCHAR", "DATE", "DOUBLE"]
    assert described["sample"][0] == {"region": "north", "day": "2024-01-01", "amount": 10.5}
    assert len(skill.describe(File(b"n\n" + b"1\n" * 100))["sample"]) == 5


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("DATE '2024-02-29'", "2024-02-29"),
        ("DATE '0044-03-15 (BC)'", "0044-03-15 (BC)"),
        ("TIMESTAMP '2024-01-01 10:00:00.123456'", "2024-01-01 10:00:00.123456"),
        ("TIMESTAMP 'infinity'", "infinity"),
        ("TIMESTAMPTZ '2024-01-01 10:00:00+00'", "2024-01-01 10:00:00+00"),
        ("TIME '10:00'", "10:00:00"),
        ("INTERVAL 3 DAY", "3 days"),
        ("'\\xAA'::BLOB", "qg=="),
        ("'nan'::DOUBLE", None),
        ("'-inf'::DOUBLE", None),
        ("1.50::DECIMAL(10, 2)", 1.5),
        ("2::DECIMAL(10, 2)", 2),
        ("0.1234567890123456789::DECIMAL(38, 19)", "0.1234567890123456789"),
        ("9007199254740991", 9007199254740991),
        ("9007199254740992", "9007199254740992"),
        ("170141183460469231731687303715884105727::HUGEINT", "170141183460469231731687303715884105727"),
        ("[1, NULL]", [1, None]),
        ("{'at': DATE '2024-01-01', 'x': ['nan'::DOUBLE]}", {"at": "2024-01-01", "x": [None]}),
        ("MAP {'k': 9007199254740993}", {"k": "9007199254740993"}),
        ("'{\"a\": [1.5]}'::JSON", {"a": [1.5]}),
        ("true", True),
        ("NULL", None),
        ("'é漢'", "é漢"),
    ],
)
def test_each_type_of_sql_comes_back_as_a_json_value(skill, expression, value):
    result = skill.query(SALES, f"SELECT {expression} AS v LIMIT 1")
    assert result["rows"] == [{"v": value}]
    json.dumps(result, allow_nan=False)


def test_rows_beyond_the_limit_are_cut_and_the_note_says_so(skill):
    result = skill.query(SALES, "SELECT i FROM range(1000000) t(i) ORDER BY i DESC", 3)
    assert [row["i"] for row in result["rows"]] == [999999, 999998, 999997]
    assert result["truncated"] is True
    assert "more rows than the 3 shown" in result["note"]
    assert skill.query(SALES, "FROM range(3)", 3)["truncated"] is False


def test_an_answer_stops_before_it_is_too_large_for_a_model(skill):
    result = skill.query(SALES, "SELECT repeat('x', 9000) AS x FROM range(500)", 500)
    assert 0 < result["row_count"] < 500
    assert result["truncated"] is True
    assert "rows fit" in result["note"]
    (row,) = skill.query(SALES, "SELECT repeat('x', 20000) AS x")["rows"]
    assert row["x"] == "x" * 10_000 + "…"


def test_columns_of_the_same_name_are_told_apart(skill):
    assert skill.query(SALES, "SELECT 1 AS a, 2 AS a, 3 AS a_2")["rows"] == [{"a": 1, "a_2": 2, "a_2_2": 3}]


@pytest.mark.parametrize(
    "sql", ["DESCRIBE data", "SUMMARIZE data", "VALUES (1)", "FROM data -- all of it", "FROM data;"]
)
def test_statements_that_only_read_are_allowed(skill, sql):
    assert skill.query(SALES, sql)["row_count"] >= 1


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "SELECT 1; SELECT 2",
        "DROP VIEW data",
        "CREATE TABLE t AS SELECT 1",
        "SET threads = 8",
        "COPY data TO '/tmp/stolen.csv'",
        "ATTACH '/tmp/other.db'",
        "INSTALL httpfs",
        "PRAGMA database_list",
        "CALL duckdb_settings()",
    ],
)
def test_statements_that_do_more_than_read_are_refused(skill, sql):
    assert "one statement that reads" in error_of(skill.query(SALES, sql))
    assert "one statement that reads" in error_of(skill.convert(SALES, "csv", sql))


@pytest.mark.parametrize(
    "source",
    [
        "read_csv('{path}')",
        "read_text('{path}')",
        "read_blob('{path}')",
        "'{path}'",
        "glob('{folder}/*')",
        "read_parquet('https://example.com/x.parquet')",
        "'s3://bucket/x.csv'",
    ],
)
def test_sql_reaches_no_other_file_and_no_address(skill, tmp_path, source):
    path = tmp_path / "other.csv"
    path.write_text("secret\n1\n")
    response = skill.query(SALES, f"SELECT * FROM {source.format(path=path, folder=tmp_path)}")
    assert "nothing else" in error_of(response)


def test_no_file_of_a_call_is_left_when_it_ends(skill):
    skill.convert(SALES, "parquet")
    skill.query(SALES, "SELECT broken")
    _, folder = skill._engine()
    assert list(Path(folder).iterdir()) == []


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (File(b""), "empty"),
        (File(b"\x1f\x8b\x08\x00rest", name="sales.csv"), "compressed"),
        (File(b"PK\x03\x04rest", name="sales.xlsx"), "compressed"),
        (File(b"PAR1 not really PAR1"), "can't be read as parquet"),
        (File(b'{"a": 1}\n{"a": ', name="x.jsonl"), "can't be read as jsonl"),
        (File('{"a": "é"}'.encode("latin-1"), name="x.json"), "not UTF-8"),
        (File(bytes(range(1, 256)) * 4), "can't be read as csv"),
    ],
)
def test_a_file_that_is_no_table_gets_an_error_without_paths_of_the_guest(skill, file, message):
    text = error_of(skill.query(file, "FROM data"))
    assert message in text
    assert "/tmp" not in text


def test_wrong_sql_gets_the_engines_message_with_the_column_that_was_meant(skill):
    text = error_of(skill.query(SALES, "SELECT amonut FROM data"))
    assert "amonut" in text
    assert "amount" in text
    assert "/tmp" not in text


def test_a_query_that_needs_too_much_memory_says_what_to_do(skill):
    text = error_of(skill.query(SALES, "SELECT list(i) FROM range(60000000) t(i)"))
    assert "256MB" in text
    assert "aggregate" in text


@pytest.mark.parametrize(
    ("data", "row"),
    [
        (b"a;b\nx;1,5\n", {"a": "x", "b": "1,5"}),
        (b"a|b\r\nx|1\r\n", {"a": "x", "b": 1}),
        (b"\xef\xbb\xbfa,b\nx,1\n", {"a": "x", "b": 1}),
        ("a,b\né,1\n".encode("utf-16"), {"a": "é", "b": 1}),
        (b'a,b\n"x, y\nz",1\n', {"a": "x, y\nz", "b": 1}),
        (b"zip,n\n01234,1\n", {"zip": "01234", "n": 1}),
        (b"a,b\n#1,1\n", {"a": "#1", "b": 1}),
    ],
)
def test_csv_dialects_are_found_out(skill, data, row):
    assert skill.query(File(data, name="x.csv"), "FROM data")["rows"] == [row]


def test_a_file_that_is_not_utf_8_is_read_as_latin_1_and_says_so(skill):
    result = skill.query(File("name\ncafé\n".encode("latin-1"), name="x.csv"), "FROM data")
    assert result["rows"] == [{"name": "café"}]
    assert "Latin-1" in result["note"]


def test_no_row_is_dropped_to_make_the_others_fit(skill):
    """Without this, DuckDB takes the only long row for the header and drops all other rows."""
    result = skill.query(File(b"a,b\n1,2\n3,4\n1,2,3,4\n", name="x.csv"), "FROM data")
    assert result["row_count"] == 3
    assert "single value" in result["note"]


def test_the_warmup_may_run_again(skill):
    skill.warm()
    skill.warm()


names = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=8).map(lambda n: "c" + n)
cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@settings(max_examples=60, deadline=None)
@given(header=st.lists(names, min_size=2, max_size=3, unique_by=str.lower), data=st.data())
def test_text_of_any_kind_is_the_same_in_json_lines_and_parquet(skill, header, data):
    rows = data.draw(st.lists(st.fixed_dictionaries(dict.fromkeys(header, cells)), min_size=1, max_size=4))
    lines = File("\n".join(json.dumps(row) for row in rows).encode(), name="x.jsonl")
    (parquet,) = skill.convert(lines, "parquet").files
    text = ", ".join(f'"{name}"::VARCHAR AS "{name}"' for name in (n.replace('"', '""') for n in header))
    assert (
        skill.query(parquet, f"SELECT {text} FROM data")["rows"]
        == skill.query(lines, f"SELECT {text} FROM data")["rows"]
    )


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(-(2**53) + 1, 2**53 - 1), st.booleans()), min_size=1, max_size=20))
def test_numbers_of_a_csv_file_come_back_unchanged(skill, rows):
    text = io.StringIO()
    csv.writer(text).writerows([("n", "flag"), *((n, str(flag).lower()) for n, flag in rows)])
    result = skill.query(File(text.getvalue().encode(), name="x.csv"), "FROM data")
    assert [(row["n"], row["flag"]) for row in result["rows"]] == rows
