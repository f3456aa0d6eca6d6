"""A router of ids that is taught by a bank's own: nearer to it on texts that it did not learn from."""

import pytest
import torch
from tiny_models import make_tiny_base, make_tiny_studio, make_tiny_tokenizer

from lmoe_studio.errors import ConfigError, PlanError, TextError
from lmoe_studio.experts.files import load_bank, save_bank
from lmoe_studio.routing.settings import RouterSettings
from lmoe_studio.studio import Studio

TEXTS = ["SELECT name FROM users;", "il fait beau", "SELECT id FROM orders;", "il pleut encore"] * 3
TEACHERS = [
    RouterSettings(scope="shared"),
    RouterSettings(scope="module", activation="sigmoid"),
    RouterSettings(top_k=1, renormalise=False),
]


@pytest.mark.parametrize("scope", ["shared", "tied"])
@pytest.mark.parametrize("teacher", TEACHERS, ids=str)
def test_it_comes_nearer_to_its_teacher(teacher, scope, tmp_path):
    studio = make_tiny_studio(router=teacher)
    before = {name: one.clone() for name, one in studio.model.named_parameters()}
    small = {"width": 16, "layers": 1}
    heard = []
    found = studio.distil(
        TEXTS, router=RouterSettings(kind="pre", scope=scope, options=small), steps=40,
        learning_rate=1e-2, on_step=lambda *one: heard.append(one),
    )  # fmt: skip
    assert [step for step, _ in heard] == list(range(1, 41))
    assert heard[-1][1] < heard[0][1]
    assert found.after.kl < found.before.kl
    assert list(found.by_layer["layer"]) == [0, 1, 2]
    assert found.by_layer["agreement"].between(0, 1).all()
    assert found.after.agreement == pytest.approx(found.by_layer["agreement"].mean())
    for name, one in studio.model.named_parameters():
        assert torch.equal(one, before[name]), name
    loaded = load_bank(save_bank(found.bank, tmp_path / "bank"))
    model = make_tiny_base()
    readable = Studio(model, make_tiny_tokenizer(), loaded)
    assert len(readable.route_plan(TEXTS[0])) == len(TEXTS[0]) * 3 * 3


def test_a_teacher_that_can_be_known_from_ids_is_repeated():
    studio = make_tiny_studio(router=RouterSettings(scope="shared"))
    found = studio.distil(TEXTS, steps=150, learning_rate=1e-2)
    assert found.after.kl < found.before.kl / 10
    assert found.after.agreement > 0.9


def test_stopped_at_once_it_is_the_untrained_one():
    found = make_tiny_studio().distil(TEXTS, should_stop=lambda: True)
    assert found.before == found.after


@pytest.mark.parametrize(
    ("texts", "options", "error", "message"),
    [
        (["SELECT"], {}, TextError, "make 1 rows .* two are needed"),
        (["a", "b", "c"], {}, TextError, "make 0 rows"),
        (TEXTS, {"steps": 0}, ConfigError, "steps"),
        (TEXTS, {"router": RouterSettings()}, ConfigError, "'linear' reads hidden states"),
    ],
)
def test_mistakes(texts, options, error, message):
    with pytest.raises(error, match=message):
        make_tiny_studio().distil(texts, **options)


def test_a_folded_blend_teaches_nothing():
    studio = make_tiny_studio()
    with studio.fold({"operation": "uniform"}), pytest.raises(PlanError, match="is folded"):
        studio.distil(TEXTS)
