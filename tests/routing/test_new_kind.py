"""What a newcomer writes for a kind of router with an option, a note and a memory: one class."""

import pytest
import torch
import torch.nn.functional as F
from pydantic import Field
from tiny_models import make_bank, make_tiny_base, make_tiny_studio
from tolerances import ONE_PASS
from torch import nn

from lmoe_studio.config import Config
from lmoe_studio.errors import BankError, ConfigError
from lmoe_studio.experts.files import load_bank, save_bank
from lmoe_studio.mixture.model import MixtureModel, MixtureOutput
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.routing.registry import ROUTERS
from lmoe_studio.routing.router import Reading, Router, RouterSpec, Scores
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.tracing.files import load_trace, save_trace


class Fading(Config):
    decay: float = Field(default=0.5, gt=0, lt=1)


class FadingRouter(Router):
    """Each token's scores are mixed with what is left of those before it."""

    learned = True
    scopes = ("layer", "tied")
    reading = "goes through a text in each layer"
    Options = Fading

    def __init__(self, spec: RouterSpec) -> None:
        super().__init__(spec)
        shape = len(spec.experts), spec.d_in
        self.weight = nn.Parameter(spec.state.get("weight", torch.zeros(shape)).float().clone())

    @classmethod
    def saved_shapes(cls, settings, num_experts, d_in):
        return {"weight": (num_experts, d_in)}

    def score(self, reading: Reading) -> Scores:
        own = F.linear(reading.normal, self.weight)
        last = reading.past.get("last", torch.zeros_like(own[:, 0]))
        decay, rows = self.options.decay, []
        for step in range(own.shape[1]):
            inside = reading.tokens.is_token[:, step, None]
            last = torch.where(inside, decay * last + own[:, step], last)
            rows.append(last)
        logits = torch.stack(rows, dim=1)
        surprise = (logits - own).norm(dim=-1, keepdim=True)
        return Scores(logits, notes={"surprise": surprise}, keep={"last": last})


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(ROUTERS, "fading", FadingRouter)


def settings(**options):
    return RouterSettings(kind="fading", options=options)


def test_its_options_are_checked_where_they_are_read():
    assert settings().options == {"decay": 0.5}
    for values, message in [
        ({"kind": "fading", "options": {"decay": 2}}, "fading router's options: decay: .* got '2'"),
        ({"kind": "fading", "options": {"dekay": 0.2}}, "did you mean 'decay'"),
        ({"kind": "fading", "scope": "module"}, "goes through a text in each layer, so its scope"),
    ]:
        with pytest.raises(ConfigError, match=message):
            RouterSettings.parse(values, source="router")


@torch.no_grad()
def test_its_memory_goes_with_the_text(ids):
    base = make_tiny_base()
    model = MixtureModel(base, make_bank(base, router=settings(decay=0.8))).eval()
    whole = model(ids, record=True)
    parts, cache = [], None
    for here in (slice(0, 4), slice(4, 5), slice(5, ids.shape[1])):
        parts.append(model(ids[:, here], past_key_values=cache, use_cache=True, record=True))
        cache = parts[-1].past_key_values
    joined = MixtureOutput.join(parts, ids.shape[1])
    torch.testing.assert_close(joined.logits, whole.logits, **ONE_PASS)
    for name in ("logits", "weights"):
        found, expected = getattr(joined.routing, name), getattr(whole.routing, name)
        torch.testing.assert_close(found, expected, **ONE_PASS)
    noted = whole.routing.notes["surprise"]
    torch.testing.assert_close(joined.routing.notes["surprise"], noted, **ONE_PASS)


def test_its_note_is_in_the_trace_of_a_text_and_in_its_file(tmp_path):
    studio = make_tiny_studio(router=settings())
    plan = RoutingPlan([Override.bias({"sql": 2.0}, strength=0.5)])
    trace = studio.generate("a b c", plan=plan, max_new_tokens=4, trace=True).trace
    assert trace.notes["surprise"].shape == (*trace.router_logits.shape[:2], 1)
    for name in ("a.parquet", "a.safetensors"):
        assert load_trace(save_trace(trace, tmp_path / name)) == trace


def test_it_is_saved_and_loaded_and_a_part_that_is_missing_is_named(tmp_path):
    base = make_tiny_base()
    bank = make_bank(base, router=settings())
    save_bank(bank, tmp_path / "bank")
    found = load_bank(tmp_path / "bank")
    assert found.router == bank.router
    assert all(torch.equal(found.router_state[n], t) for n, t in bank.router_state.items())
    lacking = bank.with_router(bank.router, {"other": torch.zeros(1)})
    with pytest.raises(
        BankError, match=r"the fading router's tensor 'layers\.0\.weight' is missing"
    ):
        MixtureModel(base, lacking)
