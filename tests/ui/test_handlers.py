"""Every handler of the page, given what no page sends: an answer, and no exception."""

import inspect
from itertools import islice
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from fake_studio import FakeStudio
from page_server import source_of

from lmoe_studio.jobs.jobs import Jobs
from lmoe_studio.ui.layout import build_app

NONSENSE = [None, "", "x", "\ud800", 3, -1.5, 1e308, True, [], [1, None], {}, {"a": {"b": []}}]
"""Values of the wrong type; each is given to all inputs at once."""


@pytest.fixture(scope="module")
def handlers(tmp_path_factory):
    app = build_app(source_of(FakeStudio()), Jobs(tmp_path_factory.mktemp("home")))
    return [event for event in app.fns.values() if event.fn is not None]


def what_gradio_lets_through(event, value):
    """The inputs as the handler gets them, or None where Gradio itself refuses them."""
    try:
        return [value if part.stateful else part.preprocess(value) for part in event.inputs]
    except Exception:
        return None


def call(function, inputs, value) -> Any:
    """All that a handler answers; whom and what it is told of stands where it asks for it."""
    given = iter(inputs)
    request = SimpleNamespace(username=None, session_hash="s", query_params={"job": value})
    arguments = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.annotation is gr.Request:
            arguments[parameter.name] = request
        elif parameter.annotation is gr.EventData:
            arguments[parameter.name] = gr.EventData(None, value)
        else:
            arguments[parameter.name] = next(given)
    answer = function(**arguments)
    return list(islice(answer, 50)) if inspect.isgenerator(answer) else answer


def test_nothing_that_a_browser_sends_makes_a_handler_fail(handlers, caplog):
    failed = set()
    for event in handlers:
        for value in NONSENSE:
            inputs = what_gradio_lets_through(event, value)
            if inputs is None:
                continue
            try:
                call(event.fn, inputs, value)
            except Exception as error:
                failed.add((event.fn.__qualname__, repr(value), f"{type(error).__name__}: {error}"))
    assert not sorted(failed)
    assert not caplog.messages, "also what is caught would be an incident"
    assert len(handlers) > 40
