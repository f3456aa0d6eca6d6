"""What tests compare of training runs."""

import torch

from lmoe_studio.training.events import StepDone

_MEASURED = ("tokens_per_second", "seconds_left")


def tensors_of(bank):
    experts = [t for e in bank.experts for f in e.adapter.factors.values() for t in (f.a, f.b)]
    return [*experts, *bank.router_state.values()]


def same(one, other):
    return all(map(torch.equal, tensors_of(one), tensors_of(other)))


def losses_of(events):
    """Everything that was logged of each step but its speed."""
    steps = [event for event in events if isinstance(event, StepDone)]
    return [{k: v for k, v in vars(event).items() if k not in _MEASURED} for event in steps]


def stopping_at(step):
    """(on_event, should_stop) that stop a run after a step."""
    seen = []

    def listen(event):
        if isinstance(event, StepDone):
            seen.append(event.step)

    return seen, listen, lambda: len(seen) + 1 >= step
