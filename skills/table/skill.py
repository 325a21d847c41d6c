# /// script
# requires-python = ">=3.11"
# dependencies = ["duckdb>=2.0,<3"]
#
# [tool.silo]
# namespace = "table"
# description = "Query CSV, TSV, JSON, JSON Lines and Parquet files with SQL, describe and convert them."
# memory_mib = 512
# timeout_s = 60
# ///
"""Query a table given as a file (CSV, TSV, JSON, JSON Lines or Parquet) with SQL; describe it; convert it.

DuckDB does the work. It may open the one file of the call and nothing else: no other file, no network, no extensions.
"""

import atexit
import codecs
import json
import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import duckdb
from duckdb.sqltypes import DuckDBPyType

from silo import AgentResponse, File, Range, Skill

skill = Skill("table")

Format = Literal["csv", "tsv", "json", "jsonl", "parquet"]

MAX_ROWS = 5_000
"""More rows than a model can read; `convert` returns all of them."""

MAX_RESULT_CHARS = 1_000_000
"""For the rows of one answer, as JSON; a result of silo may have four times that."""

MAX_CELL_CHARS = 10_000
SAMPLE_ROWS = 5

MAX_FILE_BYTES = 32 * 1024 * 1024
"""The most that silo accepts as the files of one result."""

ENGINE_MEMORY = "256MB"
"""Half of the guest's memory; the file, Python and the kernel need the rest. Beyond this limit DuckDB fails with a
message; without it, the kernel would kill the process."""

SAFE_INTEGER = 2**53 - 1
"""Readers that hold numbers as doubles would round larger ones (RFC 8259 §6), so these are returned as text."""

MEDIA_TYPES: dict[Format, str] = {
    "csv": "text/csv",
    "tsv": "text/tab-separated-values",
    "json": "application/json",
    "jsonl": "application/jsonl",
    "parquet": "application/vnd.apache.parquet",
}

ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".json": "json",
    ".geojson": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}

COPY_OPTIONS: dict[Format, str] = {
    "csv": "FORMAT csv, HEADER true",
    "tsv": "FORMAT csv, HEADER true, DELIMITER '\t'",
    "json": "FORMAT json, ARRAY true",
    "jsonl": "FORMAT json",
    "parquet": "FORMAT parquet, COMPRESSION zstd",
}

UNDIVIDED = (
    "Each line was taken for a single value: some rows have more fields than others, "
    "or something stands above the header."
)

PLAIN_TYPES = frozenset(
    {"boolean", "tinyint", "smallint", "integer", "bigint", "hugeint", "float", "double", "decimal", "varchar", "null"}
    | {"utinyint", "usmallint", "uinteger", "ubigint", "uhugeint"}
)
"""The ids of DuckDB types that arrive as Python values that JSON has, too. DuckDB turns all others into text."""

NESTED_TYPES = frozenset({"struct", "list", "array", "map", "union"})


class Column(TypedDict):
    """A column and its DuckDB type."""

    name: str
    type: str


class QueryResult(TypedDict):
    """The rows of an answer; `note` says what was left out or guessed, or is empty."""

    columns: list[Column]
    rows: list[dict[str, Any]]
    row_count: int
    truncated: bool
    note: str


class Description(TypedDict):
    """What is in a table, with its first rows."""

    format: str
    row_count: int
    columns: list[Column]
    sample: list[dict[str, Any]]
    note: str


class _RefusedError(Exception):
    """A tool can't do what was asked; the text is for a model to act on."""


@dataclass(frozen=True)
class _Source:
    """How DuckDB reads a file."""

    format: Format
    reader: str
    note: str = ""


@skill.tool(title="Query a table", read_only=True, idempotent=True)
def query(data: File, sql: str, limit: Annotated[int, Range(ge=1, le=MAX_ROWS)] = 100) -> QueryResult | AgentResponse:
    """Run one SQL query over a CSV, TSV, JSON, JSON Lines or Parquet file; the file is the table `data`.

    The SQL is DuckDB's, close to PostgreSQL's. One statement that reads: SELECT, WITH, DESCRIBE or SUMMARIZE.
    Dates and times come back as text; numbers too large or too exact for JSON readers also; NaN and infinity as null.

    Args:
        data: the file; format, delimiter, header and column types are found out by themselves.
        sql: e.g. SELECT region, sum(amount) AS total FROM data GROUP BY region ORDER BY total DESC
        limit: how many rows to return at most.
    """
    try:
        with _table(data) as (engine, source, _):
            columns, rows = _select(engine, sql, limit + 1)
            truncated = len(rows) > limit
            kept = _fit(rows[:limit])
    except _RefusedError as refused:
        return _failed(str(refused))
    notes = [source.note]
    if len(kept) < min(len(rows), limit):
        notes.append(f"Only the first {len(kept)} rows fit into an answer; select fewer columns or aggregate.")
    elif truncated:
        notes.append(f"There are more rows than the {limit} shown; raise `limit`, aggregate, or add WHERE.")
    return {
        "columns": columns,
        "rows": kept,
        "row_count": len(kept),
        "truncated": len(kept) < len(rows),
        "note": " ".join(filter(None, notes)),
    }


@skill.tool(title="Describe a table", read_only=True, idempotent=True)
def describe(data: File) -> Description | AgentResponse:
    """Show a table file's columns, their types, how many rows there are, and the first five.

    Args:
        data: a CSV, TSV, JSON, JSON Lines or Parquet file.
    """
    try:
        with _table(data) as (engine, source, _):
            columns, sample = _select(engine, "FROM data", SAMPLE_ROWS)
            _, counted = _select(engine, "SELECT count(*) AS n FROM data", 1)
    except _RefusedError as refused:
        return _failed(str(refused))
    return {
        "format": source.format,
        "row_count": counted[0]["n"],
        "columns": columns,
        "sample": _fit(sample),
        "note": source.note,
    }


@skill.tool(title="Convert a table", read_only=True, idempotent=True)
def convert(data: File, to: Format, sql: str = "FROM data") -> AgentResponse:
    """Convert a table file to CSV, TSV, JSON, JSON Lines or Parquet, and return the new file.

    Args:
        data: a CSV, TSV, JSON, JSON Lines or Parquet file.
        to: the format of the new file.
        sql: which rows and columns; default all. See `query`.
    """
    try:
        with _table(data) as (engine, source, folder):
            target = folder / "out"
            statement = _one_select(engine, sql)
            try:
                counted = engine.execute(f"COPY ({statement}\n) TO {_quote(target)} ({COPY_OPTIONS[to]})").fetchone()
            except duckdb.Error as error:
                raise _RefusedError(_explain(error)) from error
            rows = counted[0] if counted else 0
            if target.stat().st_size > MAX_FILE_BYTES:
                raise _RefusedError(
                    f"The new file would have {target.stat().st_size:,} bytes; select less, or convert to parquet."
                )
            file = File(target.read_bytes(), MEDIA_TYPES[to], f"{Path(data.name).stem or 'table'}.{to}")
    except _RefusedError as refused:
        return _failed(str(refused))
    text = f"{file.name}: {rows} rows, {file.size} bytes, converted from {source.format}. {source.note}".rstrip()
    return AgentResponse(
        llm_text=text,
        raw_data={"name": file.name, "rows": rows, "size_bytes": file.size, "from": source.format, "to": to},
        files=(file,),
    )


@skill.instructions()
def manual() -> str:
    """Tell a model how to use the skill."""
    return (
        "Call `describe` first if you do not know the columns. In SQL the file is the table `data`; put names with "
        'spaces or capitals into double quotes ("Order ID"). Let SQL do the work (GROUP BY, ORDER BY, LIMIT) '
        "instead of fetching rows to count or add them yourself. `query` returns rows to read, `convert` a file "
        "with all of them."
    )


@skill.warmup()
def warm() -> None:
    """Start the engine, read each kind of file and write one: DuckDB does most of its set-up at first use."""
    table = File(b"day,kind,n,x\n2024-01-01,a,1,0.5\n2024-01-02,b,2,1.5\n", name="warm.csv")
    query(table, "SELECT kind, sum(n) AS n, avg(x), max(day) FROM data WHERE n > 0 GROUP BY kind ORDER BY n DESC")
    query(table, "SELECT missing FROM data")
    query(File(b'[{"n": 1, "at": "2024-01-01T00:00:00Z", "tags": ["a"]}]', name="warm.json"), "FROM data")
    (parquet,) = convert(table, "parquet").files
    describe(parquet)


@cache
def _engine() -> tuple[duckdb.DuckDBPyConnection, Path]:
    """Return the engine, and the only folder in which it may open files.

    The engine is made once, in the template of the guests, because starting it costs more than a small query. Sharing
    it is safe, because a process serves only one call.
    """
    folder = Path(tempfile.mkdtemp(prefix="table-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    engine = duckdb.connect(
        ":memory:",
        config={
            # The guest has one processor, and its /tmp is in memory: writing data there would only delay the failure.
            "threads": 1,
            "memory_limit": ENGINE_MEMORY,
            "temp_directory": "",
            "enable_external_file_cache": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "python_enable_replacements": False,
        },
    )
    engine.execute(f"SET allowed_directories = [{_quote(folder)}]")
    engine.execute("SET enable_progress_bar = false")  # it would draw on stdout
    engine.execute("SET enable_external_access = false")
    engine.execute("SET lock_configuration = true")
    return engine, folder


@contextmanager
def _table(data: File) -> Iterator[tuple[duckdb.DuckDBPyConnection, _Source, Path]]:
    """Load the file as the table `data`; yield the engine, the file's format, and a folder for what the call writes.

    Text is parsed into memory once, because a view would parse it at each use. Parquet is a view, since it is read by
    column.
    """
    engine, base = _engine()
    with tempfile.TemporaryDirectory(dir=base) as folder:
        path = Path(folder) / "data"
        path.write_bytes(data.data)
        source = _source(data, path)
        form = "VIEW" if source.format == "parquet" else "TABLE"
        try:
            engine.execute(f"CREATE {form} data AS FROM {source.reader}")
        except duckdb.Error as error:
            raise _RefusedError(_explain_load(error, source.format, path)) from error
        if source.format in ("csv", "tsv") and _looks_undivided(engine, data.data):
            source = replace(source, note=f"{source.note} {UNDIVIDED}".lstrip())
        try:
            yield engine, source, Path(folder)
        finally:
            engine.execute(f"DROP {form} data")


def _source(data: File, path: Path) -> _Source:
    """Find out the format: the name's ending, else the media type, else the first bytes."""
    if not data.data:
        raise _RefusedError("The file is empty.")
    content = data.data
    if content.startswith((b"\x1f\x8b", b"PK\x03\x04")):
        raise _RefusedError(
            "The file is compressed (gzip, ZIP or a spreadsheet); unpack it, or save the sheet as CSV, and call again."
        )
    ending = Path(data.name.lower()).suffix
    by_type = {media_type: name for name, media_type in MEDIA_TYPES.items()} | {"application/x-ndjson": "jsonl"}
    start = content[:64].lstrip(codecs.BOM_UTF8).lstrip()
    if content.startswith(b"PAR1"):
        kind: Format = "parquet"
    else:
        kind = ENDINGS.get(ending) or by_type.get(data.media_type) or ("json" if start[:1] in (b"{", b"[") else "csv")
    if kind == "parquet":
        return _Source(kind, f"read_parquet({_quote(path)})")
    encoding, note = _encoding(content)
    if kind in ("json", "jsonl"):
        if encoding != "utf-8":
            raise _RefusedError("The JSON is not UTF-8 (RFC 8259 §8.1); convert it and call again.")
        form = "newline_delimited" if kind == "jsonl" else "auto"
        return _Source(kind, f"read_json({_quote(path)}, format='{form}')", note)
    delimiter = ", delim='\t'" if kind == "tsv" else ""
    # By default, DuckDB skips leading lines, and lines that look like comments, to make the rest fit. That would lose
    # rows.
    options = f"encoding='{encoding}', sample_size=-1, skip=0, comment=''{delimiter}"
    return _Source(kind, f"read_csv({_quote(path)}, {options})", note)


def _encoding(content: bytes) -> tuple[str, str]:
    """Return the encoding for DuckDB's readers, and a note if it was guessed."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16", ""
    try:
        content.decode()
    except UnicodeDecodeError:
        # Every byte is a character in Latin-1, so this can't fail. It may be wrong, so a note says it.
        return "latin-1", "The file is not UTF-8 and was read as Latin-1; check letters with accents."
    return "utf-8", ""


def _looks_undivided(engine: duckdb.DuckDBPyConnection, content: bytes) -> bool:
    """Tell whether DuckDB took each line for one value, although the first line looks as if it had several."""
    first = content.split(b"\n", 1)[0]
    return len(engine.table("data").columns) == 1 and any(mark in first for mark in (b",", b";", b"\t", b"|"))


def _one_select(engine: duckdb.DuckDBPyConnection, sql: str) -> str:
    """Return the statement if it only reads; refuse it otherwise."""
    try:
        statements = engine.extract_statements(sql)
    except duckdb.Error as error:
        raise _RefusedError(_explain(error)) from error
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise _RefusedError(
            "Give one statement that reads: SELECT, WITH, FROM, VALUES, DESCRIBE or SUMMARIZE. The table is `data`."
        )
    return sql.strip().rstrip(";")


def _select(engine: duckdb.DuckDBPyConnection, sql: str, limit: int) -> tuple[list[Column], list[dict[str, Any]]]:
    """Run a statement and return its columns and at most `limit` rows of JSON values.

    DuckDB itself turns types that JSON lacks (dates, intervals, UUIDs, lists, structs) into text or JSON, because its
    Python values lose nanoseconds, infinite dates and years before Christ, and need another package for time zones.
    """
    statement = _one_select(engine, sql)
    try:
        relation = engine.sql(statement)
        names = _unique(relation.columns)
        types = relation.types
        cells = [_expression(f"c{i}", kind) for i, kind in enumerate(types)]
        aliases = ", ".join(f"c{i}" for i in range(len(types)))
        # Running the caller's SQL is the purpose. The line break is there because the statement may end with a comment.
        cursor = engine.execute(
            f"SELECT {', '.join(cells)} FROM ({statement}\n) AS q({aliases}) LIMIT {limit}"  # noqa: S608
        )
        nested = [kind.id in NESTED_TYPES or str(kind) == "JSON" for kind in types]
        rows = [
            {n: _value(v, is_json) for n, v, is_json in zip(names, row, nested, strict=True)}
            for row in cursor.fetchall()
        ]
    except duckdb.Error as error:
        raise _RefusedError(_explain(error)) from error
    return [{"name": n, "type": str(t)} for n, t in zip(names, types, strict=True)], rows


def _expression(column: str, kind: DuckDBPyType) -> str:
    """Return the SQL that turns a column into a type that JSON has."""
    if kind.id in NESTED_TYPES:
        return f"CAST(to_json({column}) AS VARCHAR)"
    if kind.id in ("blob", "geometry"):
        return f"base64(CAST({column} AS BLOB))"
    return column if kind.id in PLAIN_TYPES else f"CAST({column} AS VARCHAR)"


def _value(value: object, is_json: bool) -> object:
    """Return a JSON value: NaN and infinity as null, numbers that a double would round as text, long text cut."""
    if isinstance(value, str):
        if is_json:
            # DuckDB writes NaN and Infinity, which are not JSON; `parse_constant` sees exactly those.
            return _plain(json.loads(value, parse_constant=lambda _: None, parse_float=Decimal))
        return value if len(value) <= MAX_CELL_CHARS else value[:MAX_CELL_CHARS] + "…"
    return _plain(value)


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        number = int(value) if value == value.to_integral_value() else float(value)
        return number if Decimal(repr(number)) == value and abs(number) <= SAFE_INTEGER else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > SAFE_INTEGER:
        return str(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _fit(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return as many rows, from the first on, as an answer can hold."""
    size = 0
    for index, row in enumerate(rows):
        size += len(json.dumps(row, ensure_ascii=False))
        if size > MAX_RESULT_CHARS:
            return rows[:index]
    return rows


def _unique(names: list[str]) -> list[str]:
    """Return the names, with a number after repeated ones (`SELECT 1 AS a, 2 AS a`), because rows are JSON objects."""
    seen: set[str] = set()
    result = []
    for name in names:
        candidate, number = name, 2
        while candidate in seen:
            candidate, number = f"{name}_{number}", number + 1
        seen.add(candidate)
        result.append(candidate)
    return result


def _quote(text: str | Path) -> str:
    return "'" + str(text).replace("'", "''") + "'"


def _explain(error: duckdb.Error) -> str:
    """Return DuckDB's message, without paths and advice that mean nothing to the caller."""
    if isinstance(error, duckdb.OutOfMemoryException):
        return (
            f"The query needs more than {ENGINE_MEMORY} of memory. Select fewer columns, filter earlier, or aggregate."
        )
    if isinstance(error, duckdb.PermissionException):
        return "SQL here can read the table `data` and nothing else: no other files, addresses or extensions."
    lines = [line.rstrip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.lstrip().startswith(("file =", "Possible Solution", "*"))]
    return "\n".join(told[:8])[:2_000]


def _explain_load(error: duckdb.Error, kind: Format, path: Path) -> str:
    if isinstance(error, duckdb.OutOfMemoryException):
        return f"The file needs more than {ENGINE_MEMORY} of memory as {kind}. Split it, or give it as Parquet or CSV."
    # The rest of the message is about the statement, and about options that the caller can't set.
    told = " ".join(str(error).split("LINE 1:")[0].splitlines()[:3]).replace(str(path), "the file")
    return f"The file can't be read as {kind}: {told[:1_000].strip()}"


def _failed(message: str) -> AgentResponse:
    return AgentResponse(status="error", error_message=message)


if __name__ == "__main__":
    skill.run()
