"""What stands behind the page and needs no browser: loading, stored traces, outcomes."""

from threading import Event

import pytest
from fake_studio import FakeCard, FakeExpert, FakeStudio, make_trace
from job_processes import until
from patience import PATIENCE

from lmoe_studio.errors import BankError
from lmoe_studio.ui import panels
from lmoe_studio.ui.layout import status_of
from lmoe_studio.ui.outcome import trace_text
from lmoe_studio.ui.password import PasswordCheck
from lmoe_studio.ui.source import SourceState, StudioSource
from lmoe_studio.ui.traces import TraceStore


def wait_for(source):
    until(lambda: not source.state.is_loading)
    return source.state


def test_a_source_loads_in_the_background_and_tells_how_far_it_is():
    go_on = Event()

    def load(bank, on_progress):
        on_progress("Fetching the base model")
        assert go_on.wait(PATIENCE)
        return FakeStudio()

    source = StudioSource(load, lambda: ["demo"])
    assert source.start("demo")
    assert not source.start("another")
    assert source.banks() == ["demo"]
    until(lambda: source.state.progress == "Fetching the base model")
    assert "Fetching the base model" in status_of(source.state)
    go_on.set()
    assert wait_for(source).studio is not None


def test_a_bank_that_cannot_be_loaded_leaves_the_one_before_in_use():
    def load(bank, on_progress):
        if bank == "broken":
            raise BankError("Bank 'broken' has no router.")
        if bank == "bug":
            raise ZeroDivisionError("secret")
        return FakeStudio()

    source = StudioSource(load, list)
    source.start("broken")
    state = wait_for(source)
    assert (state.studio, state.problem) == (None, "Bank 'broken' has no router.")
    source.start("demo")
    assert wait_for(source).problem is None
    source.start("bug")
    state = wait_for(source)
    assert state.studio is not None
    assert state.problem is not None
    assert "ZeroDivisionError" in state.problem
    assert "secret" not in state.problem


def test_a_store_gives_a_trace_only_to_the_user_it_belongs_to():
    store = TraceStore()
    trace = make_trace(["a"])
    key = store.put("ann", trace)
    assert store.get("ann", key) is trace
    assert store.get("bob", key) is None
    assert store.get("", key) is None
    for nonsense in (None, "", 7, ["ann"], key + "x"):
        assert store.get("ann", nonsense) is None


def test_a_store_lets_the_oldest_traces_go_but_keeps_the_newest():
    trace = make_trace(["a"] * 50)
    store = TraceStore(
        most_bytes=8 * trace.routing_weights.nbytes
    )  # three: shared arrays count once
    first, second = store.put("", trace), store.put("", trace)
    assert store.get("", first) is trace
    last = [store.put("", trace) for _ in range(2)][-1]
    assert store.get("", second) is None
    assert store.get("", last) is trace
    huge = TraceStore(most_bytes=1)
    assert huge.get("", huge.put("", trace)) is trace


@pytest.mark.parametrize(
    ("error", "sentence"),
    [(RuntimeError("/secret/path"), "incident"), (MemoryError(), "incident")],
)
def test_a_fault_inside_gets_a_number_and_no_details(error, sentence, caplog):
    studio = FakeStudio()
    studio.answer = error
    outcome = trace_text(SourceState(studio=studio, bank="demo"), "text")
    assert sentence in outcome.notice
    assert "secret" not in outcome.notice
    assert "incident" in caplog.text


def test_running_out_of_memory_asks_for_a_shorter_text():
    class OutOfMemoryError(RuntimeError):
        pass

    studio = FakeStudio()
    studio.answer = OutOfMemoryError("CUDA")
    assert "shorten it" in trace_text(SourceState(studio=studio), "text").notice


def test_a_text_that_is_too_long_says_how_long_and_can_be_cut():
    state = SourceState(studio=FakeStudio(FakeCard(context_length=4)), bank="demo")
    outcome = trace_text(state, "one two three four five")
    assert "5 tokens" in outcome.notice
    assert outcome.cut_to == 4
    trace = trace_text(state, "one two three four five", max_tokens=4).trace
    assert trace is not None
    assert len(trace) == 4


def test_the_card_says_that_the_base_is_quantised():
    assert "cpu, float32<" in panels.bank_card(FakeCard())
    assert "cpu, float32, linear layers in 4bit<" in panels.bank_card(FakeCard(quantize="4bit"))


def test_cards_and_panels_escape_what_they_show():
    hostile = "<img src=x onerror=alert(1)>\"'${1}\ud800"
    card = FakeCard(bank=hostile, experts=(FakeExpert(hostile, hostile, (hostile,)),))
    for html in (panels.bank_card(card), panels.panel("note", hostile, hostile)):
        assert "<img" not in html
        assert 'alert(1)>"' not in html
        html.encode()


def test_a_password_is_asked_and_guessing_is_slow():
    check = PasswordCheck("open sesame")
    assert check("ann", "open sesame")
    assert not check(" ", "open sesame")
    check = PasswordCheck("öpen")
    for guess in ("", "a", "\ud800", "OPEN", "öpe"):
        assert not check("ann", guess)
    assert not check("ann", "öpen"), "after five wrong ones there is a pause"


def test_a_study_is_stopped_between_its_questions_too(tmp_path):
    from tiny_models import make_tiny_studio

    from lmoe_studio.tracing.corpus_files import CorpusFile
    from lmoe_studio.ui.studies import make_study

    (tmp_path / "texts.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    corpus = CorpusFile(tmp_path / "texts.jsonl", "text", None)
    stop, steps = Event(), []

    def on_step(name):
        steps.append(name)
        stop.set()

    made = make_study(
        make_tiny_studio(), corpus, tmp_path, max_tokens=8, stop=stop, on_progress=lambda _: None,
        on_step=on_step,
    )  # fmt: skip
    assert made is None
    assert len(steps) == 1
