"""A model whose blocks are shared out over processes (FSDP) gives the same bank as a whole one."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tiny_models import make_bank, make_tiny_base
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from training_runs import tensors_of

from lmoe_studio.mixture.model import MixtureModel
from lmoe_studio.training.parameters import restore_parameters, whole_parameters


def train_one_step(shard):
    base = make_tiny_base()
    model = MixtureModel(base, make_bank(base), dtype=torch.float32)
    ids = torch.randint(3, 256, (2, 9), generator=torch.Generator().manual_seed(5))
    if shard:
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        for block in model.base.model.layers:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
    output = model(ids, torch.ones_like(ids), record=True)
    (output.logits.square().mean() + output.routing.probs.square().mean()).backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
    return model, output.logits.detach()


def compare(rank, store, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    (one, logits), (sharded, same_logits) = train_one_step(False), train_one_step(True)
    a, b = whole_parameters(one), whole_parameters(sharded)
    found = {
        "sharded": all(type(p).__name__ == "DTensor" for p in sharded.parameters()),
        "logits": torch.allclose(logits, same_logits, atol=1e-4),
        "parameters": a.keys() == b.keys() and all(torch.allclose(a[n], b[n]) for n in a),
        "bank": all(
            torch.allclose(x, y)
            for x, y in zip(tensors_of(one.to_bank()), tensors_of(sharded.to_bank()), strict=True)
        ),
    }
    restore_parameters(sharded, {name: tensor + 1 for name, tensor in b.items()})
    moved = whole_parameters(sharded)
    found["restored"] = all(torch.allclose(moved[name], b[name] + 1) for name in b)
    torch.save(found, f"{results}-{rank}")
    dist.destroy_process_group()


@pytest.mark.slow
def test_a_sharded_model_computes_and_gathers_the_same(tmp_path):
    results = tmp_path / "found"
    mp.spawn(compare, args=(str(tmp_path / "store"), str(results)), nprocs=2)
    for rank in range(2):
        assert all(torch.load(f"{results}-{rank}").values())
