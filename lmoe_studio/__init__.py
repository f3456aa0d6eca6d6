"""L-MoE Studio: see, steer and measure mixtures of LoRA experts.

    import lmoe_studio as lmoe

    studio = lmoe.Studio.load("demo")
    trace = studio.trace("SELECT name FROM users")
"""

from lmoe_studio.config import RouterSettings
from lmoe_studio.errors import LMoEError
from lmoe_studio.experts.bank import Expert, ExpertBank
from lmoe_studio.experts.files import load_bank, save_bank
from lmoe_studio.mixture import MixtureModel
from lmoe_studio.routing.plan import Override, RoutingPlan
from lmoe_studio.studio import Studio
from lmoe_studio.tracing.files import load_trace, save_trace
from lmoe_studio.tracing.records import RoutingTrace
from lmoe_studio.training.config import TrainingConfig
from lmoe_studio.training.run import run_training
from lmoe_studio.version import __version__

__all__ = [
    "Expert",
    "ExpertBank",
    "LMoEError",
    "MixtureModel",
    "Override",
    "RouterSettings",
    "RoutingPlan",
    "RoutingTrace",
    "Studio",
    "TrainingConfig",
    "__version__",
    "load_bank",
    "load_trace",
    "run_training",
    "save_bank",
    "save_trace",
]
