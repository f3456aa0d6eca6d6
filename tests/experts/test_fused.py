"""Adapters on fused experts: equal to weights that are put together for each token, and to PEFT's files."""

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from zoo.adapters import fused_weights
from zoo.bases import build

from lmoe_studio.architecture import fused_shapes, layer_shapes, weight_is_transposed
from lmoe_studio.base_models import identify
from lmoe_studio.errors import AdapterError, BaseMismatchError
from lmoe_studio.experts.adapter import read_adapter, write_adapter
from lmoe_studio.experts.bank import Expert, ExpertBank
from lmoe_studio.experts.files import load_bank, save_bank
from lmoe_studio.experts.fused import FusedExperts, Groups
from lmoe_studio.experts.geometry import bank_geometry
from lmoe_studio.experts.lora import LoraAdapter, LoraFactors, from_peft, to_peft
from lmoe_studio.experts.merge import add_to_base, averaged, merge_experts
from lmoe_studio.mixture.folding import folded
from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.routing.arrow import prototype
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.tracing.composition import composition_gap

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
    # PEFT goes by these keys, and says that it does not.
    pytest.mark.filterwarnings("ignore:The following .*_pattern keys did not match:RuntimeWarning"),
]

KINDS = {
    "qwen3_moe": "gate and up in one, [fused, d_out, d_in]",
    "gpt_oss": "the other way round, with biases and a gate of its own",
}
NAMES = ("sql", "prose", "math")
TEXT = [[5, 60, 7, 200, 33, 90, 5, 11, 250]]


@pytest.fixture(scope="module", params=KINDS)
def base(request):
    return build(request.param)


def fresh(base):
    return copy.deepcopy(base)


def fused_bank(base, *, composition="output", scope="layer", kind="uniform", ranks=(2, 3, 4)):
    """Experts on q_proj and on all fused weights; the second leaves one of those alone."""
    generator = torch.Generator().manual_seed(3)
    experts = []
    for name, rank in zip(NAMES, ranks, strict=True):
        factors = {}
        for path, (*fused, d_out, d_in) in layer_shapes(base).items():
            own = path.rpartition(".")[2]
            if (own != "q_proj" and not fused) or (name, own) == ("prose", "down_proj"):
                continue
            a = torch.randn(*fused, rank, d_in, generator=generator) * 0.1
            b = torch.randn(*fused, d_out, rank, generator=generator) * 0.1
            factors[path] = LoraFactors(a, b, 0.5 + rank)
        experts.append(Expert(name, LoraAdapter(factors, "tiny")))
    settings = RouterSettings(kind=kind, scope=scope)
    return ExpertBank("fused", identify(base, "tiny"), tuple(experts), settings, {}, composition)


def with_weights_of_their_own(base, bank, weights):
    """A base whose fused experts put their weights together for every token: slow, and obvious."""
    slow = fresh(base)
    for path, module in list(slow.named_modules()):
        names = [f"{path}.{name}" for name in fused_shapes(module)]
        if names:
            layer = int(path.split(".")[2])
            slow.set_submodule(path, _ATokenAtATime(module, bank, names, weights[:, layer]))
        elif path.endswith("q_proj"):
            layer = int(path.split(".")[2])
            slow.set_submodule(path, _AProjection(module, bank, path, weights[:, layer]))
    return slow


def _blend(bank, row):
    return dict(zip(bank.expert_names, row.tolist(), strict=True))


class _AProjection(nn.Module):
    def __init__(self, base, bank, path, weights):
        super().__init__()
        self.base, self.bank, self.path, self.weights = base, bank, path, weights

    def forward(self, x):
        rows = []
        for token, row in zip(x[0], self.weights, strict=True):
            update = averaged(self.bank, self.path, _blend(self.bank, row))
            rows.append(self.base(token) + (update.b @ update.a).float() @ token)
        return torch.stack(rows)[None]


class _ATokenAtATime(nn.Module):
    def __init__(self, base, bank, names, weights):
        super().__init__()
        self.base, self.bank, self.names, self.weights = base, bank, names, weights

    def forward(self, hidden, index, scores):
        rows = []
        for place, row in enumerate(self.weights):
            found = {name: averaged(self.bank, name, _blend(self.bank, row)) for name in self.names}
            own = {name.rpartition(".")[2]: one for name, one in found.items() if one}
            experts = copy.deepcopy(self.base)
            add_to_base(experts, LoraAdapter({f"{name}": one for name, one in own.items()}))
            here = slice(place, place + 1)
            rows.append(experts(hidden[here], index[here], scores[here]))
        return torch.cat(rows)


@pytest.mark.parametrize(
    ("composition", "scope"), [("output", "layer"), ("output", "module"), ("factor", "layer")]
)
@torch.inference_mode()
def test_each_token_has_weights_of_its_own(base, composition, scope):
    ranks = (3, 3, 3) if composition == "factor" else (2, 3, 4)
    bank = fused_bank(base, composition=composition, scope=scope, ranks=ranks)
    ids = torch.tensor(TEXT)
    model = MixtureModel(fresh(base), bank).eval()
    by_layer = torch.rand(ids.shape[1], 4, 3, generator=torch.Generator().manual_seed(1))
    weights = torch.stack([by_layer[:, site.layer] for site in model.sites], dim=1)[None]
    mine = model(ids, routing_weights=weights).logits
    expected = with_weights_of_their_own(base, bank, by_layer)(ids).logits
    torch.testing.assert_close(mine, expected, atol=2e-5, rtol=0)
    assert (mine - base(ids).logits).abs().max() > 0.1


@pytest.mark.parametrize("kind", ["uniform", "arrow"])
@torch.inference_mode()
def test_a_detached_or_bypassed_base_is_itself_again(base, kind):
    ids, plain = torch.tensor(TEXT), fresh(base)
    before = {name: id(one) for name, one in plain.named_parameters()}
    scope = "module" if kind == "arrow" else "layer"
    model = MixtureModel(plain, fused_bank(base, scope=scope, kind=kind)).eval()
    assert list(model.base_state()) == list(base.state_dict())
    bypassed = model(ids, plan=Override.bypass()).logits
    torch.testing.assert_close(bypassed, base(ids).logits, atol=2e-5, rtol=0)
    model.detach()
    assert {name: id(one) for name, one in plain.named_parameters()} == before
    assert not any(isinstance(module, FusedExperts) for module in plain.modules())


@torch.inference_mode()
def test_a_folded_blend_is_the_live_one_and_leaves_no_trace(base):
    model = MixtureModel(fresh(base), fused_bank(base, scope="module")).eval()
    pinned = Override.pin({"sql": 0.7, "math": -0.2}, renormalise=False)
    ids, plan = torch.tensor(TEXT), RoutingPlan([pinned])
    live, routed = model(ids, plan=plan, record=True), model(ids)
    with folded(model, plan):
        inside = model(ids, record=True)
    torch.testing.assert_close(inside.logits, live.logits, atol=2e-5, rtol=0)
    torch.testing.assert_close(inside.routing.weights, live.routing.weights)
    assert torch.equal(model(ids).logits, routed.logits)


@torch.inference_mode()
def test_contributions_are_the_norms_of_what_is_added(base):
    """Of one expert alone with weight 1, over all weights of a block."""
    bank = fused_bank(base)
    model, ids = MixtureModel(fresh(base), bank).eval(), torch.tensor(TEXT)
    heard = {}
    for name, layer in model.bank_layers.items():

        def hear(_, args, output, name=name, layer=layer):
            heard[name] = output - layer.base(*args)

        layer.register_forward_hook(hear)
    record = model(ids, plan=Override.solo("sql"), record=True, contributions=True).routing
    for site in range(4):
        inside = [one for name, one in heard.items() if int(name.split(".")[2]) == site]
        square = sum(one.reshape(ids.shape[1], -1).square().sum(dim=1) for one in inside)
        torch.testing.assert_close(record.contributions[0, :, site, 0], square.sqrt())
        assert not record.contributions[0, :, site, 1:].any()


def test_gradients_are_those_of_weights_that_are_put_together(base):
    bank, ids = fused_bank(base), torch.tensor(TEXT)
    model = MixtureModel(fresh(base).requires_grad_(False), bank)
    model(ids).logits.log_softmax(dim=-1)[0, :, 7].sum().backward()

    leaves, weights = [], dict(base.named_parameters())
    weights = {name: one.detach() for name, one in weights.items()}
    for path in bank.modules:
        own = path if path in weights else f"{path}.weight"
        transposed = own == path and weight_is_transposed(
            base.get_submodule(path.rpartition(".")[0])
        )
        for index, expert in enumerate(bank.experts):
            if factors := expert.adapter.factors.get(path):
                a, b = (one.clone().requires_grad_() for one in (factors.a, factors.b))
                update = b @ a * factors.scale / 3
                weights[own] = weights[own] + (update.mT if transposed else update)
                leaves.append((path, index, a, b))
    logits = torch.func.functional_call(fresh(base), weights, (ids,)).logits
    logits.log_softmax(dim=-1)[0, :, 7].sum().backward()
    for path, index, a, b in leaves:
        layer = model.bank_layers[path]
        mine = layer.source.lora_a.grad.split(layer.layout.ranks, -2)[index]
        torch.testing.assert_close(mine, a.grad, atol=1e-4, rtol=1e-3)
        mine = layer.lora_b.grad.split(layer.layout.ranks, -1)[index]
        torch.testing.assert_close(mine, b.grad, atol=1e-4, rtol=1e-3)


def peft_adapter(base, folder, **options):
    torch.manual_seed(0)
    options = {"target_modules": ["q_proj"], "target_parameters": fused_weights(base), **options}
    config = LoraConfig(r=3, lora_alpha=7, init_lora_weights=False, **options)
    model = get_peft_model(fresh(base), config).eval()
    for name, one in model.named_parameters():
        if "lora_" in name:
            one.data.normal_(std=0.05)
    model.save_pretrained(folder, save_embedding_layers=False)
    return model


VARIANTS = {
    "both weights": {},
    "one weight": {"target_parameters": ["experts.down_proj"]},
    "patterns": {"rank_pattern": {"down_proj": 2, "q_proj": 5}, "alpha_pattern": {"gate_up_proj": 9}},
    "no linear layer": {"target_modules": []},
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
@torch.inference_mode()
def test_a_file_of_pefts_is_read_and_written_as_it_is(base, variant, tmp_path):
    ids, identity = torch.tensor(TEXT), identify(base, "tiny")
    peft = peft_adapter(base, tmp_path / "peft", **VARIANTS[variant])
    adapter = read_adapter(tmp_path / "peft", identity.linear_shapes, identity.blocks)
    bank = ExpertBank("one", identity, (Expert("sql", adapter),), RouterSettings(kind="uniform"))
    model = MixtureModel(fresh(base), bank).eval()
    torch.testing.assert_close(model(ids).logits, peft(ids).logits, atol=2e-5, rtol=0)

    write_adapter(adapter, tmp_path / "ours", base="tiny")
    again = PeftModel.from_pretrained(fresh(base), str(tmp_path / "ours")).eval()
    torch.testing.assert_close(again(ids).logits, peft(ids).logits, atol=2e-5, rtol=0)
    for shapes in (identity.linear_shapes, None):  # a bank is read without its base
        same = read_adapter(tmp_path / "ours", shapes)
        assert same.factors.keys() == adapter.factors.keys()
        for path, one in adapter.factors.items():
            assert torch.equal(same.factors[path].a, one.a)
            assert torch.equal(same.factors[path].b, one.b)
            assert same.factors[path].scale == one.scale


def test_a_bank_comes_back_from_its_folder_and_from_a_model(base, tmp_path):
    bank = fused_bank(base)
    save_bank(MixtureModel(fresh(base), bank).to_bank(), tmp_path / "bank")
    for mine, its in zip(bank.experts, load_bank(tmp_path / "bank").experts, strict=True):
        assert mine.adapter.factors.keys() == its.adapter.factors.keys()
        for path, one in mine.adapter.factors.items():
            assert torch.equal(one.a, its.adapter.factors[path].a)
            assert torch.equal(one.b, its.adapter.factors[path].b)


def test_parts_can_be_left_out_and_missing_parts_are_found(base, tmp_path):
    identity = identify(base, "tiny")
    peft_adapter(base, tmp_path / "whole")
    some = read_adapter(
        tmp_path / "whole", identity.linear_shapes, identity.blocks, leave_out=["down_proj"]
    )
    assert {path.rpartition(".")[2] for path in some.factors} == {"q_proj", "gate_up_proj"}
    none = read_adapter(tmp_path / "whole", identity.linear_shapes, leave_out=["experts"])
    assert {path.rpartition(".")[2] for path in none.factors} == {"q_proj"}
    peft_adapter(base, tmp_path / "cut", layers_to_transform=None)
    path = tmp_path / "cut" / "adapter_config.json"
    path.write_text(path.read_text().replace('"r": 3', '"r": 6'))
    with pytest.raises(AdapterError, match=r"experts.lora_A.weight' has shape \[12, \d+\] where"):
        read_adapter(tmp_path / "cut", identity.linear_shapes)


def test_a_base_of_other_experts_is_refused(base):
    bank = fused_bank(base)
    other = fresh(base)
    for module in other.modules():
        if fused_shapes(module):
            module.down_proj = nn.Parameter(module.down_proj[:2])
    with pytest.raises(BaseMismatchError, match=r"down_proj is 4×\d+×\d+; this base model's is 2×"):
        MixtureModel(other, bank)


def test_what_is_computed_from_factors_is_that_of_the_whole_matrices(base):
    """Geometry, prototypes and reduced merges, against updates that are formed."""
    bank = fused_bank(base)
    path = next(path for path in bank.modules if path.endswith("gate_up_proj"))
    one, other = (bank.experts[i].adapter.factors[path] for i in (0, 2))
    whole, its = (f.scale * torch.block_diag(*(f.b @ f.a).double()) for f in (one, other))
    frame = bank_geometry(bank)
    size = frame.experts.query("module == @path and expert == 'sql'").iloc[0]
    assert size["norm"] == pytest.approx(float(whole.norm())) == pytest.approx(one.update_norm)
    assert size["spectral"] == pytest.approx(float(torch.linalg.matrix_norm(whole, ord=2)))
    pair = frame.pairs.query("module == @path and expert == 'sql' and other == 'math'").iloc[0]
    assert pair["inner"] == pytest.approx(float((whole * its).sum()))
    above = (one.b @ one.a).flatten(0, 1)
    first = torch.linalg.svd(above.double()).Vh[0].float()
    assert abs(float(first @ prototype(one.a, one.b))) == pytest.approx(1, abs=1e-5)
    merged = merge_experts(bank, {"sql": 1.0, "math": 0.5}, rank=4)
    exact = (one.b @ one.a * one.scale + 0.5 * other.b @ other.a * other.scale).double()
    u, s, v = torch.linalg.svd(exact)
    nearest = u[..., :4] * s[:, None, :4] @ v[:, :4]
    found = merged.adapter.factors[path]
    torch.testing.assert_close((found.b @ found.a).double(), nearest, atol=1e-5, rtol=1e-4)
    assert merged.errors[path] == pytest.approx(
        float((exact - nearest).norm() / exact.norm()), rel=1e-4
    )


@torch.inference_mode()
def test_the_gap_between_compositions_is_measured_there_too(base):
    bank = fused_bank(base, ranks=(3, 3, 3))
    frame = composition_gap(MixtureModel(fresh(base), bank).eval(), TEXT[0])
    rows = frame[frame["module"].str.contains("experts")]
    assert len(rows) == 8
    assert (rows["gap"] > 0.1).all()


def test_each_row_goes_through_its_own_matrix():
    generator = torch.Generator().manual_seed(0)
    index = torch.tensor([[3, 0], [0, 3], [4, 3]])  # 1 and 2 of five are of nobody
    x, weight = torch.randn(6, 4, generator=generator), torch.randn(5, 3, 4, generator=generator)
    bias = torch.randn(5, 3, generator=generator)
    expected = torch.stack(
        [weight[e] @ row + bias[e] for e, row in zip(index.flatten(), x, strict=True)]
    )
    torch.testing.assert_close(Groups(index, 5).linear(x, weight, bias), expected)


def test_pefts_order_of_ranks_is_kept_there_and_back():
    a, b = torch.arange(24.0).view(6, 4), torch.arange(30.0).view(5, 6)
    factors = from_peft(a, b, 1.0, fused=2)
    assert factors.shape == (2, 5, 4)
    update = torch.einsum("ore,eri->eoi", b.view(5, 3, 2), a.view(2, 3, 4))  # as in PEFT's layer
    torch.testing.assert_close(factors.b @ factors.a, update)
    assert all(torch.equal(one, was) for one, was in zip(to_peft(factors), (a, b), strict=True))
