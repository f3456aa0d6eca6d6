"""A trace says exactly what ran, and reads back equal."""

import copy
import dataclasses
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from tiny_models import ROUTERS, make_tiny_studio, make_tiny_tokenizer, sites_before_attention
from tolerances import ONE_PASS

from lmoe_studio.errors import ContextLengthError, PlanError, StorageError, TextError
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.tracing.files import load_trace, save_trace
from lmoe_studio.tracing.recorder import score_tokens
from lmoe_studio.tracing.token_texts import TokenTexts

TEXT = "SELECT naïve\n— 日本 🎉 {{x}}"


def test_scores_are_those_of_the_logits():
    studio = make_tiny_studio()
    trace = studio.trace(TEXT, alternatives=3)
    ids = torch.tensor([trace.token_ids.tolist()])
    with torch.no_grad():
        log_p = studio.model(ids).logits[0].log_softmax(-1)[:-1]
    own = log_p.gather(-1, ids[0, 1:, None])[:, 0]
    np.testing.assert_allclose(trace.logprobs[1:], own, **ONE_PASS)
    assert np.isnan(trace.logprobs[0])
    np.testing.assert_array_equal(trace.ranks[1:], (log_p > own[:, None]).sum(-1) + 1)
    np.testing.assert_array_equal(trace.alternative_ids[1:], log_p.topk(3).indices)
    entropy = torch.distributions.Categorical(logits=log_p).entropy()
    np.testing.assert_allclose(trace.entropies[1:], entropy, **ONE_PASS)


@pytest.mark.parametrize("vocab", [259, 128 * 40])
def test_the_search_for_the_likeliest_tokens_is_exact(vocab):
    generator = torch.Generator().manual_seed(vocab)
    logits = torch.randn(300, vocab, generator=generator)
    scores = score_tokens(logits, torch.randint(vocab, (300,), generator=generator), 5)
    best = logits[:-1].log_softmax(-1).topk(5)
    np.testing.assert_array_equal(scores.alternative_ids[1:], best.indices)
    np.testing.assert_allclose(scores.alternative_logprobs[1:], best.values, atol=1e-5)


@pytest.mark.parametrize("router", ROUTERS, ids=str)
def test_replaying_a_trace_gives_the_same_logits(router):
    studio = make_tiny_studio(router=router)
    plan = RoutingPlan([Override.boost({"sql": 3}, tokens=(1, 2, 3))])
    trace = studio.trace(TEXT, plan=plan)
    ids = torch.tensor([trace.token_ids.tolist()])
    weights = torch.from_numpy(trace.routing_weights)[None]
    with torch.no_grad():
        replayed = studio.model(ids, routing_weights=weights).logits
        planned = studio.model(ids, plan=plan).logits
    torch.testing.assert_close(replayed, planned, **ONE_PASS)


def test_overridden_cells_are_exactly_those_the_plan_changed():
    trace = make_tiny_studio().trace(TEXT, plan=RoutingPlan([Override.solo("sql", layers=[1])]))
    assert trace.overridden[:, 1].all()
    assert not trace.overridden[:, [0, 2]].any()
    assert '"operation":"solo"' in trace.plan
    assert make_tiny_studio().trace(TEXT).plan is None


@pytest.mark.parametrize("router", ROUTERS, ids=str)
def test_a_trace_holds_what_the_router_alone_would_have_given(router):
    studio = make_tiny_studio(router=router)
    alone = studio.trace(TEXT)
    assert alone.router_weights is alone.routing_weights, "one array, not two of the same"
    first = RoutingPlan([Override.solo("sql", layers=[0])])  # what comes after it changes
    steered = studio.trace(TEXT, plan=first)
    sites = sites_before_attention(alone)
    np.testing.assert_allclose(
        steered.router_weights[:, sites], alone.routing_weights[:, sites], **ONE_PASS
    )
    changed = steered.routing_weights != steered.router_weights
    np.testing.assert_array_equal(steered.overridden, changed)


SAVED = {
    "alone": None,
    "part": RoutingPlan([Override.solo("sql", layers=[0])]),
    "whole": RoutingPlan([Override.solo("sql")]),
}


@pytest.mark.parametrize("suffix", [".parquet", ".safetensors"])
@pytest.mark.parametrize("plan", SAVED)
@pytest.mark.parametrize("top_k", [None, 1])
def test_a_file_of_an_earlier_release_says_of_the_routers_own_weights_what_it_knows(
    tmp_path, monkeypatch, suffix, plan, top_k
):
    studio = make_tiny_studio(router=RouterSettings(top_k=top_k))
    trace = studio.trace(TEXT, plan=SAVED[plan])
    path = tmp_path / f"trace{suffix}"
    save_trace(trace, path)
    forget_own_weights(path)
    again = load_trace(path)
    assert dataclasses.replace(again, router_weights=trace.router_weights) == trace
    known = ~trace.overridden
    if plan == "alone":
        assert again.router_weights is again.routing_weights
    elif plan == "part" and top_k is None:  # what was left alone shows that the router keeps all
        known = np.ones_like(known)
    np.testing.assert_array_equal(again.router_weights[known], trace.router_weights[known])
    assert np.isnan(again.router_weights[~known]).all(), "not guessed"
    assert load_trace(save_trace(again, path)) == again


def forget_own_weights(path):
    """Makes a file what earlier releases wrote."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        names = [name for name in table.column_names if name != "router_weight"]
        pq.write_table(table.select(names), path)
        return
    with safe_open(path, framework="np") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    arrays.pop("router_weights", None)
    save_file(arrays, path, metadata=metadata)


def test_a_file_holds_the_routers_own_weights_only_where_they_differ(tmp_path):
    studio = make_tiny_studio()
    for plan in (None, RoutingPlan([Override.solo("sql")])):
        trace = studio.trace(TEXT, plan=plan)
        columns = pq.read_schema(save_trace(trace, tmp_path / "trace.parquet")).names
        assert ("router_weight" in columns) == (plan is not None)


@pytest.mark.parametrize("suffix", [".parquet", ".safetensors"])
@pytest.mark.parametrize("scope", ["layer", "module"])
@pytest.mark.parametrize("planned", [False, True])
@pytest.mark.parametrize("contributions", [False, True])
@pytest.mark.parametrize("alternatives", [0, 4])
def test_a_file_reads_back_equal(tmp_path, suffix, scope, planned, contributions, alternatives):
    studio = make_tiny_studio(router=RouterSettings(scope=scope))
    plan = RoutingPlan([Override.solo("sql", tokens=[1])]) if planned else None
    trace = studio.trace(TEXT, plan=plan, contributions=contributions, alternatives=alternatives)
    again = load_trace(save_trace(trace, tmp_path / f"trace{suffix}"))
    assert again == trace
    assert again != dataclasses.replace(trace, run="another")


def test_a_parquet_file_is_the_tidy_frame(tmp_path):
    trace = make_tiny_studio().trace(TEXT)
    frame = pd.read_parquet(save_trace(trace, tmp_path / "trace.parquet"))
    assert len(frame) == trace.routing_weights.size
    assert frame["weight"].dtype == np.float32
    np.testing.assert_array_equal(frame["weight"], trace.routing_weights.ravel())


@pytest.mark.parametrize("damage", ["truncated", "text", "other", "missing"])
@pytest.mark.parametrize("suffix", [".parquet", ".safetensors"])
def test_a_damaged_file_is_refused_in_one_sentence(tmp_path, suffix, damage):
    path = save_trace(make_tiny_studio().trace("hello"), tmp_path / f"trace{suffix}")
    whole = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "text":
        path.write_text("not a trace")
    elif damage == "other":
        pd.DataFrame({"a": [1]}).to_parquet(path)
    else:
        path.unlink()
    with pytest.raises(StorageError, match=f"trace\\{suffix}"):
        load_trace(path)


DAMAGES = {
    "routing_weights": lambda a: a[:, :, :-1], "router_logits": lambda a: a[:-1],
    "overridden": lambda a: a[:, :-1], "tokens": lambda t: t[:-1], "special": lambda a: a[1:],
    "logprobs": lambda a: a[:-1], "alternative_ids": lambda a: a[1:],
    "alternative_tokens": lambda t: t[1:], "site_layers": lambda t: t[1:],
    "experts": lambda t: (*t, "one more"), "contributions": lambda a: a[:, :1],
    "alternative_logprobs": lambda a: a[:, 1:], "bank": lambda _: None, "plan": lambda _: 5,
    "seed": lambda _: "x", "versions": lambda _: ["x"], "site_modules": lambda _: [1],
    "ranks": lambda a: a.astype(np.float32), "generated": lambda a: a.astype(np.int8),
}  # fmt: skip


def damaged(trace, field, damage):
    """As a file that was changed by hand would read: nothing looks at what is built here."""
    changed = copy.copy(trace)
    object.__setattr__(changed, field, damage(getattr(trace, field)))
    return changed


@pytest.fixture(scope="module")
def contributing():
    return make_tiny_studio().trace("hello", contributions=True)


@pytest.mark.parametrize("field", DAMAGES)
def test_a_file_whose_parts_do_not_fit_is_refused(tmp_path, contributing, field):
    path = save_trace(damaged(contributing, field, DAMAGES[field]), tmp_path / "t.safetensors")
    with pytest.raises(StorageError, match="or is damaged"):
        load_trace(path)


def test_no_flag_of_python_lets_a_damaged_file_pass(tmp_path, contributing):
    """Under -O an assert is no check."""
    for field, damage in DAMAGES.items():
        save_trace(damaged(contributing, field, damage), tmp_path / f"{field}.safetensors")
    code = (
        "import sys, pathlib\n"
        "from lmoe_studio.errors import StorageError\n"
        "from lmoe_studio.tracing.files import load_trace\n"
        "assert False, 'these are off'\n"
        "for path in pathlib.Path(sys.argv[1]).iterdir():\n"
        "    try:\n"
        "        load_trace(path)\n"
        "    except StorageError:\n"
        "        continue\n"
        "    print(path.stem)\n"
    )
    command = [sys.executable, "-O", "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0), done.stderr


def test_a_trace_in_another_format_is_refused(tmp_path):
    with pytest.raises(StorageError, match=r"\.parquet or \.safetensors, not '\.txt'"):
        save_trace(make_tiny_studio().trace("hello"), tmp_path / "trace.txt")


def test_token_texts_add_up_to_the_text():
    tokenizer = make_tiny_tokenizer()
    texts = TokenTexts(tokenizer).sequence(tokenizer("aé日🎉b")["input_ids"])
    assert texts == ("a", "�", "é", "�", "�", "日", "�", "�", "�", "🎉", "b")


def test_blank_and_too_long_texts_are_refused():
    studio = make_tiny_studio()
    for blank in ("", "  \n\t "):
        with pytest.raises(TextError, match="blank"):
            studio.trace(blank)
    with pytest.raises(ContextLengthError, match="129 tokens and this model reads at most 128"):
        studio.trace("x" * 129)
    assert len(studio.trace("x" * 129, max_tokens=100)) == 100
    assert len(studio.trace("x" * 128)) == 128
    assert len(studio.trace("a\ud800b")) == 3  # a lone surrogate is replaced


def test_a_plan_with_an_unknown_expert_or_layer_is_refused():
    studio = make_tiny_studio()
    with pytest.raises(PlanError, match=r"Override 1 \(solo\).*'sqll'; did you mean 'sql'"):
        studio.trace("x", plan=RoutingPlan([Override.solo("sqll")]))
    with pytest.raises(PlanError, match="names layer 9; this model has layers 0 to 2"):
        studio.trace("x", plan=RoutingPlan([Override.solo("sql", layers=[9])]))
