"""A merged blend does what the live blend does, within what it says of itself."""

import pytest
import torch
from peft import PeftModel
from tiny_models import make_bank, make_tiny_base, make_tiny_studio
from transformers import AutoModelForCausalLM

from lmoe_studio.errors import BankError, ConfigError, PlanError, StorageError
from lmoe_studio.experts.adapter import read_adapter
from lmoe_studio.experts.merge import merge_blend, merge_experts
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.plan import Override, RoutingPlan, Span

BLENDS = [
    {"sql": 1.0},
    {"sql": 0.6, "math": 0.4},
    {"sql": 1.5, "prose": -0.5},
    {"sql": 0.2, "prose": 0.3, "math": 0.5},
]
FACTOR = {"composition": "factor"}
MIXED = {"ranks": (2, 5, 3), "missing": [(0, "q_proj"), (2, "down_proj")]}


@torch.no_grad()
def live(bank, blend, ids):
    pin = Override.pin(blend, renormalise=False)
    return MixtureModel(make_tiny_base(), bank).eval()(ids, plan=RoutingPlan([pin])).logits


@torch.no_grad()
def reloaded(folder, ids):
    return PeftModel.from_pretrained(make_tiny_base(), str(folder)).eval()(ids).logits


@pytest.mark.parametrize("blend", BLENDS, ids=str)
@pytest.mark.parametrize("options", [{}, FACTOR, MIXED], ids=["output", "factor", "mixed ranks"])
def test_the_exact_merge_equals_the_live_blend_in_plain_peft(tmp_path, ids, options, blend):
    bank = make_bank(make_tiny_base(), **options)
    merged = merge_blend(bank, blend, out=tmp_path / "out")
    assert merged.largest_error == 0
    expected_rank = 4 if options == FACTOR else None
    assert expected_rank in (None, merged.rank)
    torch.testing.assert_close(
        reloaded(tmp_path / "out", ids), live(bank, blend, ids), atol=1e-4, rtol=0
    )


def test_more_rank_than_a_layer_has_is_still_exact(tmp_path, ids):
    """Σ r_i = 3 · 14 exceeds the 16 of k_proj; rank 16 holds it all."""
    bank = make_bank(make_tiny_base(), ranks=(14, 14, 14), size=0.1)
    blend = BLENDS[3]
    merged = merge_blend(bank, blend, out=tmp_path / "out")
    assert merged.largest_error < 1e-6
    assert merged.adapter.factors["model.layers.0.self_attn.k_proj"].rank == 16
    torch.testing.assert_close(
        reloaded(tmp_path / "out", ids), live(bank, blend, ids), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("options", [{}, FACTOR, MIXED], ids=["output", "factor", "mixed ranks"])
@pytest.mark.parametrize("rank", [1, 3, 6])
def test_a_low_rank_merge_is_the_best_there_is_and_states_its_error(options, rank):
    bank = make_bank(make_tiny_base(), **options)
    blend = {"sql": 1.5, "prose": -0.5, "math": 0.2}
    exact, low = merge_experts(bank, blend), merge_experts(bank, blend, rank=rank)
    assert low.rank <= rank
    for name, f in low.adapter.factors.items():
        e = exact.adapter.factors[name]
        whole, part = e.b.double() @ e.a.double(), f.b.double() @ f.a.double()
        error = float((whole - part).norm() / whole.norm())
        assert low.errors[name] == pytest.approx(error, abs=1e-6)
        values = torch.linalg.svdvals(whole)
        best = float(values[rank:].norm() / values.norm())  # Eckart–Young
        assert error == pytest.approx(best, abs=1e-6)


def test_an_update_is_never_formed_at_full_size():
    """A rank-8 merge of two 20,000-wide layers' factors stays small; the update has 3.2 GB."""
    from lmoe_studio.experts.lora import LoraFactors
    from lmoe_studio.experts.merge import _reduce

    wide = LoraFactors(torch.randn(12, 20_000).double(), torch.randn(20_000, 12).double(), 1.0)
    factors, error = _reduce(wide, 8)
    assert factors.rank == 8
    assert 0 < error < 1


def test_a_blend_for_each_layer(tmp_path, ids):
    bank = make_bank(make_tiny_base())
    rows = [{"sql": 1.0}, {}, {"math": 0.5, "sql": 0.5}]
    merge_blend(bank, rows, out=tmp_path / "out")
    adapter = read_adapter(tmp_path / "out", None)
    assert {name.split(".")[2] for name in adapter.factors} == {"0", "2"}
    model = MixtureModel(make_tiny_base(), bank).eval()
    plan = RoutingPlan([Override.solo("sql", layers=[0]), Override.bypass(layers=[1]),
                        Override.pin(rows[2], layers=[2])])  # fmt: skip
    with torch.no_grad():
        expected = model(ids, plan=plan).logits
    torch.testing.assert_close(reloaded(tmp_path / "out", ids), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("options", [{}, FACTOR], ids=["output", "factor"])
def test_the_studio_checks_what_it_wrote(tmp_path, options):
    studio = make_tiny_studio(**options)
    plan = RoutingPlan([Override.solo("sql"), Override.uniform(layers=Span(start=1))])
    exact = studio.merge(plan, tmp_path / "plan")
    assert exact.max_difference < 1e-4
    assert max(exact.errors.values()) == 0
    rough = studio.merge(plan, tmp_path / "rough", rank=1)
    assert rough.max_difference > 100 * exact.max_difference
    whole = studio.merge({"sql": 0.6, "math": 0.4}, tmp_path / "full", full=True)
    assert whole.max_difference < 1e-4


def test_a_whole_model_loads_without_this_package(tmp_path, ids):
    studio = make_tiny_studio()
    studio.merge({"sql": 0.6, "math": 0.4}, tmp_path / "full", full=True)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "full").eval()
    with torch.no_grad():
        logits = model(ids).logits
    expected = live(studio.bank, {"sql": 0.6, "math": 0.4}, ids)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
    assert (tmp_path / "full" / "tokenizer.json").is_file()


def test_merging_leaves_the_live_model_as_it_was(tmp_path):
    studio = make_tiny_studio()
    before = studio.trace("hello")
    studio.merge({"sql": 1.0}, tmp_path / "a")
    studio.merge({"sql": 1.0}, tmp_path / "b", full=True)
    assert (studio.trace("hello").logprobs[1:] == before.logprobs[1:]).all()


@pytest.mark.parametrize(
    ("blend", "options", "error", "message"),
    [
        ({"sqll": 1.0}, {}, BankError, "no expert 'sqll'; did you mean 'sql'"),
        ({"sql": float("nan")}, {}, ConfigError, "weight of 'sql' is nan"),
        ({"sql": 1e9}, {}, ConfigError, "expected a number up to 100"),
        ({"sql": 0.0}, {}, ConfigError, "All weights of the blend are zero"),
        ({}, {}, ConfigError, "All weights of the blend are zero"),
        ({"sql": 1.0}, {"rank": 0}, ConfigError, "rank of a merge is 0; expected a whole number from 1 to 1,024"),
        (RoutingPlan([Override.solo("sql", tokens="generated")]), {}, PlanError, "some tokens only"),
        (RoutingPlan([Override.ban("sql")]), {}, PlanError, "leaves weights to the router"),
        (RoutingPlan(), {}, PlanError, "leaves weights to the router"),
        (RoutingPlan([Override.bypass()]), {}, ConfigError, "nothing to merge"),
    ],
)  # fmt: skip
def test_mistakes_are_named_and_nothing_is_written(tmp_path, blend, options, error, message):
    with pytest.raises(error, match=message):
        make_tiny_studio().merge(blend, tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("full", [False, True])
def test_a_folder_that_is_there_is_left_alone(tmp_path, full):
    with pytest.raises(StorageError, match="is there already"):
        make_tiny_studio().merge({"sql": 1.0}, tmp_path, full=full)
    with pytest.raises(StorageError, match="cannot be written"):
        make_tiny_studio().merge({"sql": 1.0}, "/proc/nowhere/x", full=full)
