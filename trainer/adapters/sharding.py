"""A frozen base cut up over the processes of a job, by FSDP (`torch.distributed.fsdp.fully_shard`).

Of each block's weights every process holds its part; the whole is gathered for the block's forward pass, and again for
its backward pass, and given up afterwards. Embeddings, output matrix, adapters and value head stay whole: the adapters
are small, are put into the blocks afterwards, and their gradients are summed with the batch's other sums.

Gathering is a joint act, so all processes must make equally many passes: `LanguageModel.rounds` says how many.
"""

from typing import Any, cast

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from trainer.adapters.blocks import blocks_of
from trainer.adapters.policies import LanguageModel
from trainer.adapters.processes import largest


def shard(lm: LanguageModel) -> None:
    """Cut up `lm`, in place, over the running process group; before an adapter is attached."""
    mesh = init_device_mesh(lm.device.type, (dist.get_world_size(),))
    decoder: Any = lm.model.get_decoder()
    blocks = blocks_of(decoder)
    kept = {id(p) for block in blocks for p in block.parameters()}
    for block in blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    rest = {p for p in cast("torch.nn.Module", decoder).parameters() if id(p) not in kept}
    fully_shard(decoder, mesh=mesh, ignored_params={p for p in rest if not hasattr(p, "device_mesh")})
    lm.together = largest
