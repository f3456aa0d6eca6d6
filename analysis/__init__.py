"""Questions about routing, answered with pandas; nothing of torch or of the Studio is needed.

from analysis import routing_frame, token_frame, expert_usage

frame = routing_frame(trace)      # one row for each position × layer × expert
expert_usage(frame)               # share and load of each expert in each layer

Every question takes a frame and gives a frame; `select` narrows what it is about, `by` says what to
keep apart, and `value="contribution"` asks about the updates that were added in place of the weights.
"""

from analysis.cells import FrameError, select
from analysis.coactivation import coactivation
from analysis.comparison import compare_runs
from analysis.entropy import effective_experts, routing_entropy
from analysis.frames import TraceLike, routing_frame, token_frame
from analysis.health import gate_health
from analysis.sites import active_experts, count_experts, site_frame
from analysis.specialisation import label_owners, label_shares, specialisation
from analysis.tokens import expert_tokens
from analysis.transitions import layer_transitions
from analysis.usage import expert_usage

__all__ = [
    "FrameError",
    "TraceLike",
    "active_experts",
    "coactivation",
    "compare_runs",
    "count_experts",
    "effective_experts",
    "expert_tokens",
    "expert_usage",
    "gate_health",
    "label_owners",
    "label_shares",
    "layer_transitions",
    "routing_entropy",
    "routing_frame",
    "select",
    "site_frame",
    "specialisation",
    "token_frame",
]
