"""Python source files of Django, SymPy and NetworkX, and their functions as pairs."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from corpus import Document, Pair, chunks, held_out
from packages import members

PACKAGES = ("Django", "sympy", "networkx")
MAX_CHARS = 6_000
MIN_ANSWER_LINES = 2
MAX_ANSWER_CHARS = 2_000
# Tests, translations and database migrations read like tables; benchmarks are almost tests; the
# ANTLR parsers are machine-made; sympy.parsing.latex is taken over from another project.
SKIPPED_FOLDERS = {
    *("tests", "test", "benchmarks", "locale", "migrations"),
    *("_antlr", "vendor", "_vendor", "vendored"),
}
SKIPPED_PREFIXES = ("sympy/parsing/latex/",)


def documents(archives: list[Path]) -> Iterator[Document]:
    """One document per source file."""
    for archive in archives:
        for name, content in members(archive, _wanted):
            source = content.decode("utf-8").replace("\r\n", "\n").expandtabs(4)
            yield Document(name, held_out(name), chunks(source, MAX_CHARS), tuple(_pairs(source)))


def _wanted(name: str) -> bool:
    folders = name.split("/")[:-1]
    return (
        name.endswith(".py")
        and not SKIPPED_FOLDERS.intersection(folders)
        and not name.startswith(SKIPPED_PREFIXES)
    )


def _pairs(source: str) -> Iterator[Pair]:
    """Each top-level function that says what it does: description in, function out."""
    lines = source.splitlines()
    for node in ast.parse(source).body:
        if not isinstance(node, ast.FunctionDef) or (docstring := ast.get_docstring(node)) is None:
            continue
        summary = " ".join(docstring.split("\n\n")[0].split())
        first = node.body[0]
        assert first.end_lineno is not None, "a parsed node has a last line"
        head = lines[node.lineno - 1 : first.lineno - 1]
        body = lines[first.end_lineno : node.end_lineno]
        while body and not body[0].strip():
            body = body[1:]
        answer = "\n".join(head + body)
        signature = re.sub(r"\s+", " ", " ".join(head)).replace("( ", "(").replace(", )", ")")
        if len(body) >= MIN_ANSWER_LINES and head and len(answer) <= MAX_ANSWER_CHARS:
            prompt = f"Write a Python function `{signature}` that does the following: {summary}"
            yield Pair(prompt, f"```python\n{answer}\n```")
