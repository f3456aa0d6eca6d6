"""Sizes and likeness of updates, against the full matrices; the cross-term meter, against both."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import make_bank, make_tiny_base, make_tiny_studio

from lmoe_studio.errors import AdapterError, BaseMismatchError
from lmoe_studio.experts.bank import ExpertBank
from lmoe_studio.experts.geometry import bank_geometry, match_experts
from lmoe_studio.experts.lora import LoraAdapter, LoraFactors
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.routing.settings import RouterSettings

MODULE = "model.layers.1.mlp.up_proj"


@pytest.fixture(scope="module")
def bank():
    return make_bank(make_tiny_base(), ranks=(4, 2, 5), missing=[(1, "v_proj")])


def full(bank, expert, module=MODULE):
    factors = bank.experts[expert].adapter.factors[module]
    return factors.scale * factors.b.double() @ factors.a.double()


def test_sizes_are_those_of_the_full_matrices(bank):
    rows = bank_geometry(bank).experts.set_index(["module", "expert"])
    for expert, name in enumerate(bank.expert_names):
        row, singular = rows.loc[(MODULE, name)], torch.linalg.svdvals(full(bank, expert))
        assert row["norm"] == pytest.approx(float(singular.norm()))
        assert row["spectral"] == pytest.approx(float(singular[0]))
        share = singular[: row["rank"]] / singular.sum()
        entropy = float(-(share * share.log()).sum())
        assert row["effective_rank"] == pytest.approx(np.exp(entropy), rel=1e-5)
    assert (rows.loc[MODULE, "layer"] == 1).all()
    assert (rows.loc[MODULE, "target"] == "up_proj").all()
    assert ("model.layers.0.self_attn.v_proj", "prose") not in rows.index


def test_pairs_are_those_of_the_full_matrices(bank):
    pairs = bank_geometry(bank).pairs.set_index(["module", "expert", "other"])
    one, other = full(bank, 0), full(bank, 2)
    row = pairs.loc[(MODULE, "sql", "math")]
    assert row["inner"] == pytest.approx(float((one * other).sum()))
    assert row["cosine"] == pytest.approx(float((one * other).sum() / one.norm() / other.norm()))
    for side, mine, its in (("output", one, other), ("input", one.T, other.T)):
        bases = [torch.linalg.svd(m)[0][:, :rank] for m, rank in ((mine, 4), (its, 5))]
        cosines = torch.linalg.svdvals(bases[0].T @ bases[1])
        assert row[f"{side}_angle"] == pytest.approx(float(torch.rad2deg(cosines[0].acos())))
        assert row[f"{side}_overlap"] == pytest.approx(float((cosines**2).mean()))


def test_pooled_cosines_are_those_of_all_updates_as_one_vector(bank):
    vectors = [
        torch.cat(
            [
                full(bank, expert, module).flatten()
                if module in bank.experts[expert].adapter.factors
                else torch.zeros(np.prod(bank.base.linear_shapes[module]), dtype=torch.double)
                for module in bank.modules
            ]
        )
        for expert in range(3)
    ]
    expected = torch.nn.functional.cosine_similarity(vectors[0], vectors[1], dim=0)
    geometry = bank_geometry(bank)
    assert geometry.cosines.loc["sql", "prose"] == pytest.approx(float(expected))
    assert geometry.cosines.loc["prose", "sql"] == pytest.approx(float(expected))
    np.testing.assert_allclose(np.diag(geometry.cosines), 1)
    assert geometry.norms["math"] == pytest.approx(float(vectors[2].norm()))
    assert geometry.summary()["cosine"]["sql"]["prose"] == pytest.approx(float(expected), abs=1e-4)


def rewritten(bank: ExpertBank, change) -> ExpertBank:
    experts = tuple(
        replace(e, adapter=LoraAdapter({n: change(f) for n, f in e.adapter.factors.items()}))
        for e in bank.experts
    )
    return replace(bank, experts=experts)


def test_what_the_same_update_is_factored_into_does_not_matter(bank):
    generator = torch.Generator().manual_seed(0)

    def refactor(f: LoraFactors) -> LoraFactors:
        turn = torch.randn(f.rank, f.rank, generator=generator) + 3 * torch.eye(f.rank)
        return LoraFactors(torch.linalg.inv(turn) @ f.a / 2, f.b @ turn, f.scale * 2)

    one, other = bank_geometry(bank), bank_geometry(rewritten(bank, refactor))
    for name in ("experts", "pairs"):
        pd.testing.assert_frame_equal(
            getattr(one, name), getattr(other, name), rtol=1e-3, atol=1e-3
        )


def test_an_update_of_nothing_has_no_direction(bank):
    geometry = bank_geometry(rewritten(bank, lambda f: replace(f, b=torch.zeros_like(f.b))))
    assert (geometry.experts[["norm", "effective_rank"]] == 0).all(axis=None)
    assert geometry.pairs["cosine"].isna().all()
    assert geometry.summary()["cosine"]["sql"]["math"] is None


def test_experts_are_matched_by_name_or_by_likeness(bank):
    assert match_experts(bank, bank) == {"sql": "sql", "prose": "prose", "math": "math"}
    renamed = tuple(replace(e, name=f"expert-{i}") for i, e in enumerate(bank.experts[::-1]))
    other = rewritten(replace(bank, experts=renamed), lambda f: replace(f, b=f.b + 0.02))
    assert match_experts(bank, other) == {
        "expert-0": "math", "expert-1": "prose", "expert-2": "sql",
    }  # fmt: skip
    with pytest.raises(BaseMismatchError, match="has 3 experts"):
        match_experts(bank, replace(bank, experts=bank.experts[:2]))
    with pytest.raises(BaseMismatchError, match="different base models"):
        match_experts(bank, replace(bank, base=replace(bank.base, fingerprint="x")))


def test_the_cross_term_meter_against_full_matrices():
    studio = make_tiny_studio()
    gap = studio.composition_gap("hello").set_index("module")
    assert len(gap) == len(studio.bank.modules)
    layer = studio.model.bank_layers[MODULE]
    seen = []
    hook = layer.base.register_forward_pre_hook(lambda _, args: seen.append(args[0][0].double()))
    trace = studio.trace("hello")
    hook.remove()
    weights = torch.from_numpy(trace.routing_weights[:, 1]).double()
    factors = [expert.adapter.factors[MODULE] for expert in studio.bank.experts]
    output, factor = [], []
    for x, w in zip(seen[0], weights, strict=True):
        pairs = list(zip(w, factors, strict=True))
        output.append(sum(v * f.scale * f.b.double() @ (f.a.double() @ x) for v, f in pairs))
        a = sum(v * f.a.double() for v, f in pairs)
        b = sum(v * f.scale * f.b.double() for v, f in pairs)
        factor.append(b @ (a @ x))
    output, factor = torch.stack(output), torch.stack(factor)
    row = gap.loc[MODULE]
    assert row["output"] == pytest.approx(float(output.norm()), rel=1e-4)
    assert row["factor"] == pytest.approx(float(factor.norm()), rel=1e-4)
    assert row["gap"] == pytest.approx(float((output - factor).norm() / output.norm()), rel=1e-4)
    assert (gap["gap"] > 0.01).all()


@pytest.mark.parametrize("scope", ["layer", "shared", "module"])
def test_with_one_expert_the_compositions_do_not_differ(scope):
    studio = make_tiny_studio(router=RouterSettings(scope=scope))
    gap = studio.composition_gap("hello", plan=RoutingPlan([Override.solo("sql")]))
    assert gap["gap"].max() < 1e-4  # what float32 makes of two ways to one norm


def test_metering_leaves_the_model_as_it_was():
    studio = make_tiny_studio()
    before = studio.trace("hello").routing_weights
    studio.composition_gap("hello")
    np.testing.assert_array_equal(studio.trace("hello").routing_weights, before)


def test_experts_of_different_ranks_have_no_cross_terms():
    with pytest.raises(AdapterError, match=r"different ranks .*\(2, 4\)"):
        make_tiny_studio(ranks=(4, 2)).composition_gap("hello")
