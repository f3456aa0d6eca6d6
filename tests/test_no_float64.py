"""What runs where the model is does without float64, which MPS has not got."""

import torch
from tiny_models import make_bank, make_tiny_base, make_tiny_studio
from torch import nn

from lmoe_studio.experts.merge import add_to_base
from lmoe_studio.routing.plan import Override


class OnDevice(torch.Tensor):
    """A tensor of a device without float64: whatever comes of it is one too, until it is on the CPU."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        found = super().__torch_function__(func, types, args, kwargs or {})
        if func is torch.Tensor.cpu:
            return found.as_subclass(torch.Tensor)
        if isinstance(found, OnDevice) and found.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64")
        return found


def put_on_device(model):
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                tensor = parameter.detach().as_subclass(OnDevice)
                module._parameters[name] = nn.Parameter(tensor, requires_grad=False)


def test_the_cross_term_meter_and_every_pass(tmp_path):
    studio = make_tiny_studio()
    plan = [Override.boost({"sql": 2}), Override.top_k(2)]
    expected = studio.composition_gap("hello", plan=plan)
    put_on_device(studio.model)
    found = studio.composition_gap("hello", plan=plan)
    torch.testing.assert_close(
        torch.tensor(found["gap"].to_numpy()), torch.tensor(expected["gap"].to_numpy()),
        atol=1e-4, rtol=1e-3,
    )  # fmt: skip
    studio.trace("hello", plan=plan, contributions=True)
    studio.evaluate(["hello"])


def test_a_merge_into_the_base():
    model, plain = make_tiny_base(), make_tiny_base()
    adapter = make_bank(model).experts[0].adapter
    add_to_base(plain, adapter)
    put_on_device(model)
    add_to_base(model, adapter)
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one.cpu(), other)
