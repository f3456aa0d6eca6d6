"""Compose's blend as a file: the plan merged into one ordinary PEFT adapter, to be downloaded."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr

from lmoe_studio.ui import panels
from lmoe_studio.ui.page import Page
from lmoe_studio.ui.plan_form import read_form
from lmoe_studio.ui.problems import problem_panel


def build_save(page: Page, composer: gr.HTML) -> gr.Button:
    """The button that saves the composer's plan; what came of it is said below."""
    with gr.Row(elem_classes="starts", elem_id="compose-save-row"):
        save = gr.Button(
            "Save blend as PEFT adapter", size="sm", scale=0, min_width=180, interactive=False,
            elem_id="save-adapter",
        )  # fmt: skip
        gr.HTML(
            "<span>For a plan that is the same for all tokens: one ordinary LoRA adapter</span>",
            apply_default_css=False,
        )
    notice = gr.HTML(apply_default_css=False, elem_id="save-notice", elem_classes="notice")

    def _on_save(form: object) -> Iterator[list[Any]]:
        yield [panels.status_line("Writing the adapter…", tone="loading"), gr.skip()]
        with TemporaryDirectory(prefix="lmoe-adapter-") as place:  # Gradio takes a copy of the file
            try:
                studio = page.source.state.loaded()
                plan = read_form(form, bank=studio.card.bank).plan
                file, difference = _write_adapter(studio, plan, Path(place))
            except Exception as error:
                yield [problem_panel(error), None]
                return
            said = f"Loaded again in PEFT, its logits differ from the live blend by at most {difference:.1e}."
            yield [panels.panel("note", "The adapter is saved", said), file]

    saved = save.click(
        _on_save, composer, [notice, page.download],
        concurrency_id="model", concurrency_limit=1, show_progress="hidden", api_visibility="private",
    )  # fmt: skip
    page.hand_over(saved)
    return save


def _write_adapter(studio: Any, plan: Any, folder: Path) -> tuple[str, float]:
    """An adapter folder as one zip file, and how far it is from the blend."""
    name = f"blend-{time.strftime('%Y%m%d-%H%M%S')}"
    with TemporaryDirectory(prefix="lmoe-merge-") as made:
        result = studio.merge(plan, Path(made) / "adapter")
        file = shutil.make_archive(str(folder / name), "zip", made)
    return file, float(result.max_difference)
