"""PostgreSQL's regression tests as text; their comments and made-up questions as pairs.

The made-up questions name one small table and ask one thing about it. Each answer is run in
SQLite on random rows and kept only if it finds or changes something.
"""

import random
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from corpus import Document, Pair, chunks, held_out
from packages import members

PACKAGES = ("pglast",)
FOLDER = "pglast-8.7/libpg_query/test/sql/postgres_regress/"
# Thousands of digits, and a file that is not UTF-8.
SKIPPED_FILES = ("numeric_big.sql", "collate.windows.win1252.sql")
MAX_CHARS = 6_000
COPY_BLOCK = re.compile(r"^copy\b[^;]*\bfrom\s+stdin\b[^;]*;.*?^\\\.[ \t]*\n", re.I | re.M | re.S)
COMMENTED = re.compile(
    r"^(?P<comment>(?:--[^\n]*\n)+)(?P<statement>[a-z][^;]{10,600};)[ \t]*$", re.I | re.M
)
MAX_COMMENT_CHARS = 200
# Such a comment says what the test expects, not what the statement does.
EXPECTATION = re.compile(r"\b(fail|fails|error|errors|ok|okay|should|bug|works?|now)\b", re.I)

QUESTIONS = 6_000
ROWS = 24
TABLES = (
    *("hotels", "invoices", "students", "flights", "products", "orders", "movies", "employees"),
    *("players", "songs", "cars", "books", "shops", "teams", "tickets", "rooms"),
)
NUMBERS = (
    *("rating", "year", "age", "weight", "quantity"),
    *("price", "score", "amount", "level", "height"),
)
WORDS = {
    "name": ("Ann", "Bob", "Cid", "Dora", "Eve", "Finn"),
    "title": ("Echo", "River", "Stone", "Dawn", "Harbor"),
    "city": ("Paris", "Cairo", "Lima", "Oslo", "Kyoto"),
    "country": ("France", "Egypt", "Peru", "Norway", "Japan"),
    "category": ("a", "b", "c", "d"),
    "status": ("new", "open", "late", "done"),
}


def documents(archives: list[Path]) -> Iterator[Document]:
    """One document per test file, and one per made-up question."""
    for path, content in members(archives[0], _wanted):
        name = path.removeprefix(FOLDER)
        text = COPY_BLOCK.sub("", content.decode("utf-8").replace("\r\n", "\n"))
        text = re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in text.splitlines()))
        yield Document(name, held_out(name), chunks(text, MAX_CHARS), tuple(_commented(text)))
    yield from _made_up()


def _wanted(name: str) -> bool:
    file = name.removeprefix(FOLDER)
    return name.startswith(FOLDER) and file.endswith(".sql") and file not in SKIPPED_FILES


def _commented(text: str) -> Iterator[Pair]:
    """Each statement that directly follows a comment about it."""
    for match in COMMENTED.finditer(text):
        statement = match["statement"]
        comment = " ".join(line.strip(" -") for line in match["comment"].splitlines()).strip()
        # A semicolon inside a function body or a string would cut the statement short.
        if "$" in statement or "--" in statement or statement.count("'") % 2:
            continue
        is_about_it = not EXPECTATION.search(comment) and len(comment.split()) >= 3
        if is_about_it and len(comment) <= MAX_COMMENT_CHARS:
            prompt = f"Write a PostgreSQL statement for this: {comment}"
            yield Pair(prompt, f"```sql\n{statement}\n```")


@dataclass(frozen=True)
class Table:
    """One made-up table: two number columns, two word columns, and values to ask about."""

    name: str
    columns: tuple[str, ...]
    number: str
    other: str
    word: str
    second: str
    value: str
    limit: int

    @property
    def schema(self) -> str:
        typed = (f"{name} {'TEXT' if name in WORDS else 'INTEGER'}" for name in self.columns)
        return f"CREATE TABLE {self.name} ({', '.join(typed)});"


def _made_up() -> Iterator[Document]:
    """Questions about made-up tables, until there are enough."""
    rng = random.Random(0)
    seen: set[str] = set()
    while len(seen) < QUESTIONS:
        table = _table(rng)
        question, statement = rng.choice(_questions(table, rng.randint(2, 5)))
        prompt = f"{table.schema}\n\nWrite one SQL statement. {question}"
        if prompt in seen or not _does_something(table, statement, rng):
            continue
        seen.add(prompt)
        # Split by the answer: the same statement over a reordered table is the same task.
        pair = Pair(prompt, f"```sql\n{statement}\n```")
        yield Document(prompt, held_out(statement), pairs=(pair,))


def _table(rng: random.Random) -> Table:
    number, other = rng.sample(NUMBERS, 2)
    word, second = rng.sample(sorted(WORDS), 2)
    return Table(
        name=rng.choice(TABLES),
        columns=tuple(rng.sample((number, other, word, second), 4)),
        number=number,
        other=other,
        word=word,
        second=second,
        value=rng.choice(WORDS[word]),
        limit=rng.randint(5, 95),
    )


def _questions(table: Table, few: int) -> list[tuple[str, str]]:
    """What can be asked of a table, each with its answer."""
    name, number, word = table.name, table.number, table.word
    value, limit = table.value, table.limit
    an_number = f"{'an' if number[0] in 'aeiou' else 'a'} {number}"
    return [
        (
            f"How many {name} have {an_number} above {limit}?",
            f"SELECT COUNT(*) FROM {name} WHERE {number} > {limit};",
        ),
        (
            f"What is the average {number} of {name} with {word} '{value}'?",
            f"SELECT AVG({number}) FROM {name} WHERE {word} = '{value}';",
        ),
        (
            f"What is the largest {number} among {name} whose {word} is not '{value}'?",
            f"SELECT MAX({number}) FROM {name} WHERE {word} <> '{value}';",
        ),
        (
            f"List the {word} and {number} of all {name}, highest {number} first.",
            f"SELECT {word}, {number} FROM {name} ORDER BY {number} DESC;",
        ),
        (
            f"Show the {few} {name} with the lowest {number}.",
            f"SELECT * FROM {name} ORDER BY {number} ASC LIMIT {few};",
        ),
        (
            f"For each {word}, how many {name} are there?",
            f"SELECT {word}, COUNT(*) FROM {name} GROUP BY {word};",
        ),
        (
            f"Which {word} values have a total {number} of more than {limit}?",
            f"SELECT {word} FROM {name} GROUP BY {word} HAVING SUM({number}) > {limit};",
        ),
        (
            f"Show the distinct {word} values of {name} with {number} between {limit} and"
            f" {limit + 20}.",
            f"SELECT DISTINCT {word} FROM {name} WHERE {number} BETWEEN {limit} AND {limit + 20};",
        ),
        (
            f"List the {table.second} of all {name} with {word} '{value}' and {table.other} of at"
            f" least {limit}.",
            f"SELECT {table.second} FROM {name} WHERE {word} = '{value}' AND {table.other} >="
            f" {limit};",
        ),
        (
            f"Set the {number} of all {name} with {word} '{value}' to {limit}.",
            f"UPDATE {name} SET {number} = {limit} WHERE {word} = '{value}';",
        ),
        (
            f"Delete all {name} whose {number} is below {limit}.",
            f"DELETE FROM {name} WHERE {number} < {limit};",
        ),
    ]


def _does_something(table: Table, statement: str, rng: random.Random) -> bool:
    """Run a statement on random rows: does it return or change any, and not only NULL?"""
    rows = [
        [
            rng.choice(WORDS[name]) if name in WORDS else rng.randint(1, 100)
            for name in table.columns
        ]
        for _ in range(ROWS)
    ]
    database = sqlite3.connect(":memory:")
    try:
        database.execute(table.schema)
        database.executemany(f"INSERT INTO {table.name} VALUES (?, ?, ?, ?)", rows)
        cursor = database.execute(statement)
        if statement.startswith("SELECT"):
            return any(row[0] not in (None, 0) for row in cursor)
        return cursor.rowcount > 0
    finally:
        database.close()
