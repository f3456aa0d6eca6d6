"""A study as one HTML file that needs nothing else: plotly.js is inside, and nothing is fetched."""

from collections.abc import Callable
from functools import partial
from html import escape
from pathlib import Path

import pandas as pd
from plotly.offline import get_plotlyjs

from lmoe_studio.errors import StorageError
from lmoe_studio.ui.clean_text import clean
from lmoe_studio.ui.study import Section, Study
from lmoe_studio.version import __version__
from lmoe_studio.whole import whole_file

MOST_ROWS = 300
"""Rows of a table that the report shows; the exports hold all."""

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)
_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1f; --muted: #6a6f78; --paper: #fafafa;
  --card: #fff; --edge: #e4e4e8; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececf1; --muted: #9a9fa8; --paper: #0f0f11;
  --card: #18181b; --edge: #2c2c31; } }
body { margin: 0 auto; padding: 28px 20px 60px; max-width: 1040px; background: var(--paper);
  color: var(--ink); font: 15px/1.5 "IBM Plex Sans", system-ui, sans-serif; }
h1 { font-size: 22px; margin: 0 0 4px; } h2 { font-size: 17px; margin: 0 0 2px; }
p { margin: 0 0 8px; color: var(--muted); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 18px; margin: 14px 0;
  font-size: 13px; } dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; }
section { margin: 18px 0; padding: 16px 18px; background: var(--card);
  border: 1px solid var(--edge); border-radius: 8px; overflow-x: auto; }
li { margin: 3px 0; } summary { cursor: pointer; color: var(--muted); font-size: 13px; }
table { border-collapse: collapse; font-size: 12px; margin-top: 8px; }
th, td { padding: 3px 10px 3px 0; border-bottom: 1px solid var(--edge); text-align: left;
  font-variant-numeric: tabular-nums; white-space: pre-wrap; }
"""


def write_report(study: Study, path: Path | str) -> Path:
    """Write the report. Raises StorageError if that fails."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as staged:
            staged.write_text(report_html(study), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}.") from None
    return path


def report_html(study: Study) -> str:
    """The whole page; every text in it is escaped."""
    return "".join(piece() for piece in report_pieces(study))


def report_pieces(study: Study) -> list[Callable[[], str]]:
    """The page in pieces, one after the other; each is made when its turn comes."""
    sections = [partial(_section, section) for section in study.sections]
    return [partial(_head, study), *sections, lambda: "</body></html>\n"]


def table_html(table: pd.DataFrame, *, most: int = MOST_ROWS) -> str:
    """A frame as a plain table; numbers to four digits, text as it is."""
    head = "".join(f"<th>{_safe(name)}</th>" for name in table)
    rows = [
        "".join(f"<td>{_safe(_cell(value))}</td>" for value in row)
        for row in table.head(most).itertuples(index=False)
    ]
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    more = f"<p>The first {most:,} of {len(table):,} rows.</p>" if len(table) > most else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _head(study: Study) -> str:
    facts = "".join(f"<dt>{_safe(k)}</dt><dd>{_safe(v)}</dd>" for k, v in study.facts.items())
    answers = "".join(f"<li>{_safe(answer)}</li>" for answer in study.answers)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Routing study</title><style>{_STYLE}</style><script>{get_plotlyjs()}</script></head>"
        f"<body><h1>Routing study</h1><p>L-MoE Studio {_safe(__version__)}</p><dl>{facts}</dl>"
        f"<section><h2>Findings</h2><ul>{answers}</ul></section>"
    )


def _section(section: Section) -> str:
    figure = ""
    if section.figure is not None:
        figure = section.figure.to_html(
            full_html=False,
            include_plotlyjs=False,
            config={"displaylogo": False, "responsive": True},
        )
    return (
        f"<section><h2>{_safe(section.title)}</h2><p>{_safe(section.note)}</p>{figure}"
        f"<details><summary>Table, {len(section.table):,} rows</summary>"
        f"{table_html(section.table)}</details></section>"
    )


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _safe(text: object) -> str:
    return escape(clean(str(text)), quote=True)
