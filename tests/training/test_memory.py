"""A memory of labelled examples: whose states it holds, how many, and how it routes."""

import pytest
import torch
from tiny_models import NAMES, make_bank, make_tiny_base, make_tiny_tokenizer

from lmoe_studio.base_models import BaseModel
from lmoe_studio.errors import BankError, ConfigError, DataError, TextError
from lmoe_studio.experts.files import load_bank, save_bank
from lmoe_studio.routing.router import inverse_rms
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.studio import Studio
from lmoe_studio.training.memory import build_memory

TEXTS = {
    "sql": ["SELECT name FROM users", "DROP TABLE orders"],
    "prose": ["Call me Ishmael.", "It was the best of times,"],
    "math": ["2+2=4", "x"],
}


@pytest.fixture(scope="module")
def base():
    model = make_tiny_base()
    return BaseModel(model, make_tiny_tokenizer(), make_bank(model).base)


@pytest.fixture(scope="module")
def bank(base):
    return make_bank(base.model)


@pytest.mark.parametrize("scope", ["layer", "shared"])
def test_its_keys_are_the_bases_states_of_as_many_tokens_for_each_expert(base, bank, scope):
    settings = RouterSettings(kind="knn", scope=scope, options={"k": 3})
    found = build_memory(base, bank, TEXTS, settings=settings, per_expert=3)
    sources = found.training["memory"]
    assert [sum(one["expert"] == name for one in sources) for name in NAMES[:3]] == [3, 3, 3]
    places = {"shared": 0} if scope == "shared" else {f"layers.{i}": i for i in range(3)}
    for row, source in enumerate(sources):
        texts = [text for text in TEXTS[source["expert"]] if source["excerpt"] in text]
        ids = torch.tensor([base.tokenizer(texts[0])["input_ids"]])
        hidden = base.model(ids, output_hidden_states=True).hidden_states
        assert source["position"] > 0
        for place, layer in places.items():
            state = hidden[layer][0, source["position"]]
            expected = state * inverse_rms(state)
            key = found.router_state[f"{place}.keys"][row]
            torch.testing.assert_close(key, expected, atol=1e-4, rtol=1e-4)
            assert found.router_state[f"{place}.labels"][row] == NAMES.index(source["expert"])


def test_where_examples_are_few_every_expert_has_as_few_keys(base, bank):
    found = build_memory(base, bank, TEXTS, per_expert=64)
    labels = found.router_state["layers.0.labels"]
    assert (
        labels.bincount(minlength=3).tolist() == [4, 4, 4] if labels.dtype == torch.long else True
    )
    assert [int((labels == index).sum()) for index in range(3)] == [4, 4, 4]


def test_it_routes_a_text_like_the_examples_that_it_is_one_of(base, bank, tmp_path):
    settings = RouterSettings(kind="knn", options={"k": 1})
    found = build_memory(base, bank, TEXTS, settings=settings, per_expert=4)
    found = load_bank(save_bank(found, tmp_path / "bank"))
    studio = Studio(base.model, base.tokenizer, found)
    sources = found.training["memory"]
    for source in sources:
        [text] = [text for text in TEXTS[source["expert"]] if source["excerpt"] in text]
        trace = studio.trace(text)
        at = source["position"]
        first = trace.routing_weights[at, 0]  # the first block reads what it read then
        assert first.argmax() == NAMES.index(source["expert"])
        nearest = trace.notes["neighbour"][at, 0, 0]
        assert sources[int(nearest)]["expert"] == source["expert"]
        assert trace.notes["neighbour_distance"][at, 0].min() < 1e-3


def test_the_base_model_is_left_as_it_was(base, bank):
    ids = torch.arange(3, 12)[None]
    before = base.model(ids).logits
    names = [name for name, _ in base.model.named_modules()]
    build_memory(base, bank, TEXTS, per_expert=2)
    assert torch.equal(base.model(ids).logits, before)
    assert [name for name, _ in base.model.named_modules()] == names


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({"sqll": ["ab"]}, {}, ConfigError, "given for 'sqll'; did you mean 'sql'"),
        ({"math": None}, {}, ConfigError, "Expert 'math' has no examples"),
        ({"math": ["a"]}, {}, TextError, "The examples of 'math' have no text of two tokens"),
        ({"math": "none.txt"}, {}, DataError, "none.txt"),
        ({}, {"per_expert": 0}, ConfigError, "per_expert"),
        ({}, {"settings": RouterSettings()}, ConfigError, "of kind 'knn', not 'linear'"),
        (
            {},
            {"settings": RouterSettings(kind="knn", options={"heads": 5})},
            BankError,
            "width 32 into 5 heads",
        ),
    ],
)
def test_mistakes(base, bank, change, options, error, message):
    given = {name: texts for name, texts in (TEXTS | change).items() if texts is not None}
    with pytest.raises(error, match=message):
        build_memory(base, bank, given, **options)


def test_a_list_of_texts_says_not_what_they_are_examples_of(base, bank):
    with pytest.raises(ConfigError, match="examples are a list; expected texts by expert"):
        build_memory(base, bank, ["SELECT"])


def test_a_studio_gives_its_bank_a_memory_and_stays_what_it_is(base, bank):
    studio = Studio(base.model, base.tokenizer, bank)
    found = studio.build_memory(TEXTS, per_expert=2)
    assert found.router.kind == "knn"
    assert studio.bank.router.kind == "linear"
    alone = build_memory(base, bank, TEXTS, per_expert=2)
    for name, tensor in alone.router_state.items():
        torch.testing.assert_close(found.router_state[name], tensor, rtol=0, atol=0)
