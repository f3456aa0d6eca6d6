"""Questions about routing, answered with pandas; nothing of torch or of the Studio is needed.

from analysis import routing_frame, token_frame, expert_usage

frame = routing_frame(trace)      # one row for each position × layer × expert
expert_usage(frame)               # share and load of each expert in each layer
"""

from analysis.frames import TraceLike, routing_frame, token_frame
from analysis.specialisation import specialisation
from analysis.usage import expert_usage

__all__ = ["TraceLike", "expert_usage", "routing_frame", "specialisation", "token_frame"]
