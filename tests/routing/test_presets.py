"""Published mechanisms by name."""

import pytest

from lmoe_studio.errors import ConfigError
from lmoe_studio.routing.presets import PRESETS
from lmoe_studio.routing.settings import RouterSettings, Threshold
from lmoe_studio.training.config import TrainingConfig

NAMES = ["a", "b", "c", "d", "e"]


def config(router, **more):
    skills = [{"name": name, "train": [f"{name}.txt"]} for name in NAMES]
    values = {"name": "x", "out": "x", "skills": skills, "router": router} | more
    return TrainingConfig.parse(values, source="config")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_the_settings_it_stands_for(name, tmp_path):
    found = config({"preset": name})
    assert found.router.preset is None
    assert found.router.kind == PRESETS[name]["kind"]
    assert "preset" not in found.router.model_dump()
    found.write(tmp_path / "again.yaml")
    assert TrainingConfig.read(tmp_path / "again.yaml").router == found.router


def test_what_stands_beside_a_preset_goes_before_it():
    given = {"preset": "moa-sparse", "scope": "module", "threshold": {"limit": 0.2}}
    found = RouterSettings(**given, options={"width": 3})
    assert found.scope == "module"
    assert found.threshold == Threshold(limit=0.2)
    assert (found.options["form"], found.options["width"]) == ("swiglu", 3)
    assert RouterSettings(preset="moa-sparse", threshold=None).threshold is None
    other = RouterSettings(preset="moa-soft", kind="linear")
    assert (other.kind, other.activation, other.options) == ("linear", "sigmoid", {})


def test_a_tree_is_made_of_the_skills():
    levels = config({"preset": "smore"}).router.options["levels"]
    assert [level["experts"] for level in levels] == [["a", "b"], ["c", "d", "e"]]
    own = [{"experts": NAMES}]
    assert config({"preset": "smore", "options": {"levels": own}}).router.options["levels"][0][
        "experts"
    ] == NAMES  # fmt: skip
    few = {"skills": [{"name": name, "train": ["a.txt"]} for name in "abc"]}
    with pytest.raises(ConfigError, match="at least 2 experts, and here are 3"):
        config({"preset": "smore"}, **few)
    with pytest.raises(ConfigError, match="takes the experts' names from a config's skills"):
        RouterSettings.parse({"preset": "smore"}, source="router")


@pytest.mark.parametrize("name", ["moa-spars", 3, ["moa-soft"], {"a": 1}])
def test_an_unknown_preset_is_one_sentence(name):
    for parse in (config, lambda given: RouterSettings.parse(given, source="router")):
        with pytest.raises(ConfigError, match=r"no preset .*moa-sparse") as error:
            parse({"preset": name})
        assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="did you mean 'moa-sparse'"):
        config({"preset": "moa-spars"})


def test_losses_of_shares_are_off_where_weights_are_none():
    losses = ("balance_loss", "z_loss", "skill_loss")

    def of(found):
        return tuple(getattr(found, name) for name in losses)

    assert of(config({})) == (0.01, 0.001, 0.3)
    assert of(config({"preset": "wemoe"})) == (0, 0, 0)
    assert of(config({"activation": "identity"}, skill_loss=0.2)) == (0, 0, 0.2)
    assert of(config(RouterSettings(activation="identity"))) == (0, 0, 0)
    assert of(config({"preset": "wemoe", "activation": "softmax"})) == (0.01, 0.001, 0.3)
