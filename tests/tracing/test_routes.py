"""Routes that are known before a run, and read back as a plan."""

import numpy as np
import pandas as pd
import pytest
from tiny_models import make_tiny_studio

import lmoe_studio as lmoe
from lmoe_studio.errors import ConfigError, PlanError
from lmoe_studio.routing.settings import RouterSettings

TEXT = "SELECT name FROM users"


@pytest.fixture(scope="module", params=["tied", "shared"])
def studio(request):
    """One that chooses one expert a token, from ids."""
    router = RouterSettings(kind="pre", scope=request.param, top_k=1, options={"width": 8})
    return make_tiny_studio(router=router)


def test_they_are_what_a_run_then_does(studio):
    routes = studio.route_plan(TEXT)
    trace = studio.trace(TEXT)
    found = routes["weight"].to_numpy().reshape(trace.routing_weights.shape)
    np.testing.assert_allclose(found, trace.routing_weights, atol=1e-6)
    assert routes["token"][:: len(trace.experts) * len(trace.site_layers)].tolist() == [
        *trace.tokens
    ]


def test_as_a_plan_they_give_the_same_and_edited_what_they_say(studio):
    routes = studio.route_plan(TEXT)
    as_plan = studio.trace(TEXT, plan=lmoe.plan_of_routes(routes))
    np.testing.assert_array_equal(as_plan.routing_weights, studio.trace(TEXT).routing_weights)
    here = (routes["position"] == 2) & (routes["layer"] == 1)
    routes.loc[here, "weight"] = [0.25, 0.0, 0.75]
    routes.loc[(routes["position"] == 3) & (routes["layer"] == 1), "weight"] = 0.0
    edited = studio.trace(TEXT, plan=lmoe.plan_of_routes(routes)).routing_weights
    assert edited[2, 1].tolist() == [0.25, 0.0, 0.75]
    assert not edited[3, 1].any()


def test_what_cannot_be_known_or_read_back_is_refused(studio):
    with pytest.raises(ConfigError, match="linear router reads hidden states"):
        make_tiny_studio().route_plan(TEXT)
    routes = studio.route_plan(TEXT)
    with pytest.raises(PlanError, match="no column weight"):
        lmoe.plan_of_routes(routes.drop(columns="weight"))
    with pytest.raises(PlanError, match="twice at position 0, layer 0"):
        lmoe.plan_of_routes(pd.concat([routes, routes.head(1)]))
