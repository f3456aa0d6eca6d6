"""L-MoE Studio: see, steer and measure mixtures of LoRA experts.

import lmoe_studio as lmoe

studio = lmoe.Studio.load("demo")
trace = studio.trace("SELECT name FROM users")
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lmoe_studio.version import __version__

if TYPE_CHECKING:
    from lmoe_studio.errors import LMoEError
    from lmoe_studio.experts.bank import Expert, ExpertBank
    from lmoe_studio.experts.files import load_bank, save_bank
    from lmoe_studio.experts.merge import merge_blend
    from lmoe_studio.generation.comparison import Comparison
    from lmoe_studio.generation.text import Generation
    from lmoe_studio.hub.attaching import attach, detach
    from lmoe_studio.hub.causal_lm import LMoEForCausalLM
    from lmoe_studio.hub.repository import push_bank
    from lmoe_studio.importing import import_adapters
    from lmoe_studio.jobs.job import Job, JobState
    from lmoe_studio.jobs.jobs import Jobs
    from lmoe_studio.mixture.model import MixtureModel
    from lmoe_studio.routing.plan import (
        Override,
        RegexMatch,
        RoutingPlan,
        Span,
        Steps,
        TextMatch,
    )
    from lmoe_studio.routing.settings import RouterSettings
    from lmoe_studio.studio import Studio
    from lmoe_studio.tracing.files import load_trace, save_trace
    from lmoe_studio.tracing.records import RoutingTrace
    from lmoe_studio.tracing.routes import plan_of_routes
    from lmoe_studio.training.config import TrainingConfig
    from lmoe_studio.training.run import run_training

# Of each 8-bit product bitsandbytes says that it casts; and when it is imported, which PEFT does
# wherever it is installed, which kernels it has not found.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

# A name is imported when it is first asked for: `lmoe --help` and the page need not wait for torch.
_HOME = {
    "Comparison": "generation.comparison",
    "Expert": "experts.bank",
    "ExpertBank": "experts.bank",
    "Generation": "generation.text",
    "Job": "jobs.job",
    "JobState": "jobs.job",
    "Jobs": "jobs.jobs",
    "LMoEError": "errors",
    "LMoEForCausalLM": "hub.causal_lm",
    "MixtureModel": "mixture.model",
    "Override": "routing.plan",
    "RegexMatch": "routing.plan",
    "RouterSettings": "routing.settings",
    "RoutingPlan": "routing.plan",
    "RoutingTrace": "tracing.records",
    "Span": "routing.plan",
    "Steps": "routing.plan",
    "Studio": "studio",
    "TextMatch": "routing.plan",
    "TrainingConfig": "training.config",
    "import_adapters": "importing",
    "attach": "hub.attaching",
    "detach": "hub.attaching",
    "load_bank": "experts.files",
    "load_trace": "tracing.files",
    "merge_blend": "experts.merge",
    "plan_of_routes": "tracing.routes",
    "push_bank": "hub.repository",
    "run_training": "training.run",
    "save_bank": "experts.files",
    "save_trace": "tracing.files",
}

__all__ = [
    "Comparison",
    "Expert",
    "ExpertBank",
    "Generation",
    "Job",
    "JobState",
    "Jobs",
    "LMoEError",
    "LMoEForCausalLM",
    "MixtureModel",
    "Override",
    "RegexMatch",
    "RouterSettings",
    "RoutingPlan",
    "RoutingTrace",
    "Span",
    "Steps",
    "Studio",
    "TextMatch",
    "TrainingConfig",
    "__version__",
    "attach",
    "detach",
    "import_adapters",
    "load_bank",
    "load_trace",
    "merge_blend",
    "plan_of_routes",
    "push_bank",
    "run_training",
    "save_bank",
    "save_trace",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lmoe_studio' has no attribute '{name}'")
    return getattr(import_module(f"lmoe_studio.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
