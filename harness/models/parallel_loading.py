"""The share of a model that is this rank's, with its own or with random weights; torch.distributed is set up."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from harness.errors import OutOfMemory
from harness.models import parallel_adapter
from harness.models.parallel_local import localise
from harness.models.parallel_random import fill_randomly
from harness.models.parallel_share import local_elements, local_tensor
from harness.models.parallel_styles import Style
from harness.models.plans import TensorPlan
from harness.units import gibibytes

# Up to this size, random weights are those of the whole model of that seed. A fixed number, so that all ranks and all
# machines draw the same weights; each rank needs this much memory beside its share while it loads.
_WHOLE_BYTES = 2 * 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """Who this process is among the ranks of its group."""

    degree: int
    rank: int
    on_host: int  # ranks that share this machine's memory


def ranks_of_group() -> Ranks:
    """The ranks of the default process group. Raises ``ValueError`` where the caller has not set one up."""
    if not dist.is_initialized():
        raise ValueError("parallelism='tensor' needs torch.distributed.init_process_group first")
    degree = dist.get_world_size()
    return Ranks(degree=degree, rank=dist.get_rank(), on_host=int(os.environ.get("LOCAL_WORLD_SIZE", degree)))


def check_share_fits(
    model: Any,
    plan: TensorPlan,
    ranks: Ranks,
    *,
    weight_bytes: int,
    random: bool,
    available_bytes: int,
    device: torch.device,
) -> None:
    """Raise OutOfMemory, on all ranks alike, where one of them lacks the memory for its share.

    ``model`` is the whole model on the meta device and ``weight_bytes`` the size of its weights.
    """
    elements = sum(parameter.numel() for parameter in model.parameters())
    share_bytes = round(weight_bytes * local_elements(model, plan, degree=ranks.degree, rank=ranks.rank) / elements)
    needed = share_bytes + (weight_bytes if random and weight_bytes <= _WHOLE_BYTES else 0)
    sharing = ranks.on_host if device.type == "cpu" else 1
    fits = torch.tensor([int(needed * sharing <= available_bytes)], device=device)
    dist.all_reduce(fits, op=dist.ReduceOp.MIN)  # also a barrier: nobody loads before everybody has looked
    if not fits.item():
        raise OutOfMemory(
            f"Rank {ranks.rank} of {ranks.degree} needs {gibibytes(needed)} to load its share of the weights"
            f"{f', and {sharing} ranks share this memory' if sharing > 1 else ''}; {device} has "
            f"{gibibytes(available_bytes)} free. One rank at least has too little.\n"
            "Use more GPUs, a smaller dtype or a smaller model."
        )


def random_share(
    on_meta: Any,
    plan: TensorPlan,
    ranks: Ranks,
    *,
    whole: Callable[[], Any],
    size_bytes: int,
    device: torch.device,
    seed: int,
) -> Any:
    """The share of a model with random weights that is this rank's; the weights are the same for every degree.

    Small models are built with ``whole`` as they are without parallelism, and cut. Of larger ones, of which ``on_meta``
    is the whole on the meta device, no rank ever holds more than one module whole; see ``fill_randomly``.
    """
    if size_bytes <= _WHOLE_BYTES:
        return parallel_adapter.distribute(whole(), plan, ranks.degree)
    model = parallel_adapter.distribute(on_meta, plan, ranks.degree)
    placeholders = dict(model.named_parameters(remove_duplicate=False))

    def keep(path: str, tensor: torch.Tensor) -> torch.Tensor:
        if plan.parameter_style(path) is Style.QKV_MULTI_QUERY:
            return tensor  # cut by finish_share
        local = local_tensor(model, plan, path, tensor, degree=ranks.degree, rank=ranks.rank)
        return parallel_adapter.placeholder_filled(placeholders[path], local)

    fill_randomly(model, seed=seed, device_of=lambda _path: device, keep=keep)
    return model


def finish_share(model: Any, plan: TensorPlan, ranks: Ranks) -> None:
    """What is left to do once the weights are there: cut what came whole, and ``localise``."""
    for path, parameter in list(model.named_parameters()):
        if plan.parameter_style(path) is not Style.QKV_MULTI_QUERY:
            continue
        owner, _, name = path.rpartition(".")
        local = local_tensor(model, plan, path, parameter.detach(), degree=ranks.degree, rank=ranks.rank)
        model.get_submodule(owner)._parameters[name] = torch.nn.Parameter(local, requires_grad=False)
    localise(model, plan, degree=ranks.degree, rank=ranks.rank)
