"""A button that reads a config file in the browser and sends its text: nothing is uploaded."""

from typing import Any

import gradio as gr

from lmoe_studio.errors import ConfigError
from lmoe_studio.ui.clean_text import clean

_MOST_CHARACTERS = 200_000
_SCRIPT = """
const input = element.querySelector("input");
element.querySelector("button").addEventListener("click", () => input.click());
input.addEventListener("change", async () => {
  const file = input.files[0];
  if (!file) return;
  const text = file.size <= MOST ? await file.text() : " ".repeat(MOST + 1);
  trigger("given", { name: file.name, text });
  input.value = "";
});
"""


def build_config_loader(**kwargs: Any) -> gr.HTML:
    """The button; it has an event `given`, whose data `read_loaded` reads."""
    return gr.HTML(
        '<button type="button">Load a config</button>'
        '<input type="file" accept=".yaml,.yml,.json" hidden aria-label="Config file">',
        js_on_load=_SCRIPT.replace("MOST", str(_MOST_CHARACTERS)),
        apply_default_css=False,
        **kwargs,
    )


def read_loaded(said: object) -> tuple[str, str]:
    """Name and text of the file. Raises ConfigError where they did not arrive."""
    if isinstance(said, dict):
        name, text = said.get("name"), said.get("text")
        if isinstance(name, str) and isinstance(text, str):
            return clean(name[:80]), text
    raise ConfigError("The config did not arrive whole; reload the page and try again.")
