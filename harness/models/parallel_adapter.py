"""The only place that names transformers' tensor-parallel API, which moved three times in 2026.

Written for transformers 5.23 (huggingface/transformers#47352, #47579, #48300): ``DistributedConfig`` goes into
``from_pretrained``, styles are objects in a registry, sharded parameters are DTensors, and the process group is the
caller's. Its styles are joined by ours, which work on the same DTensors.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import Placement, _StridedShard
from transformers.distributed import DistributedConfig
from transformers.distributed.parallel_utils import ALL_PARALLEL_STYLES
from transformers.distributed.tensor_parallel import TensorParallelLayer

from harness.models.parallel_share import share_forward
from harness.models.parallel_styles import Collective, Style, cut_of
from harness.models.plans import TensorPlan

_OURS = (
    Style.COLWISE_3_BLOCKS,
    Style.COLWISE_12_BLOCKS,
    Style.ROWWISE_4_BLOCKS,
    Style.CONV1D_COLWISE,
    Style.CONV1D_COLWISE_3_BLOCKS,
    Style.CONV1D_ROWWISE,
)


def distributed_config(plan: TensorPlan, degree: int) -> Any:
    """What ``from_pretrained`` takes as ``distributed_config`` to give each of ``degree`` ranks its share."""
    for style in _OURS:
        if style.value not in ALL_PARALLEL_STYLES:
            ALL_PARALLEL_STYLES.register(style.value, _OurStyle(style))
    # A matrix with one KV head is nothing a DTensor can say: it comes whole, and is cut after loading.
    rules = {rule.path: rule.style.value for rule in plan.rules if rule.style is not Style.QKV_MULTI_QUERY}
    return DistributedConfig(tp_size=degree, tp_plan=rules)


def distribute(model: Any, plan: TensorPlan, degree: int) -> Any:
    """Shard a whole model in place, without exchanging anything: each rank keeps its share of what it has.

    On the meta device the parameters become placeholders of the right local shapes.
    """
    shared = _untied(model)
    config, _, mesh = type(model).prepare_distribute_model(distributed_config(plan, degree))
    model = type(model).maybe_distribute_model(model, config, mesh)
    for path, first in shared.items():
        _own(model, path)[path.rpartition(".")[2]] = model.get_parameter(first)
    return model


def _untied(model: Any) -> dict[str, str]:
    """Give each path its own parameter, since transformers shards by path; the paths that shared that of another."""
    first: dict[int, str] = {}
    shared: dict[str, str] = {}
    for path, parameter in list(model.named_parameters(remove_duplicate=False)):
        original = first.setdefault(id(parameter), path)
        if original != path:
            shared[path] = original
            copy = torch.nn.Parameter(parameter.detach(), requires_grad=False)
            _own(model, path)[path.rpartition(".")[2]] = copy
    return shared


def _own(model: Any, path: str) -> dict[str, Any]:
    parameters: dict[str, Any] = model.get_submodule(path.rpartition(".")[0])._parameters
    return parameters


def placeholder_filled(placeholder: torch.Tensor, local: torch.Tensor) -> torch.Tensor:
    """A DTensor like ``placeholder`` whose local part is ``local``."""
    if not isinstance(placeholder, DTensor):
        return local
    return DTensor.from_local(
        local.contiguous(),
        placeholder.device_mesh,
        placeholder.placements,
        run_check=False,
        shape=placeholder.shape,
        stride=placeholder.stride(),
    )


@contextmanager
def bound_to(device: torch.device) -> Iterator[None]:
    """Make transformers shard onto ``device``: it takes the machine's accelerator and LOCAL_RANK instead.

    So ``--device cpu`` works on a machine with GPUs, and a rank may see one GPU, or all of them. ``cuda`` without an
    index is the current GPU.
    """
    index = torch.cuda.current_device() if device.type == "cuda" and device.index is None else device.index or 0
    accelerator, local_rank = torch._C._get_accelerator, os.environ.get("LOCAL_RANK")
    torch._C._get_accelerator = lambda *_args: torch.device(device.type)
    os.environ["LOCAL_RANK"] = str(index)
    try:
        yield
    finally:
        torch._C._get_accelerator = accelerator
        if local_rank is None:
            del os.environ["LOCAL_RANK"]
        else:
            os.environ["LOCAL_RANK"] = local_rank


class _OurStyle(TensorParallelLayer):  # type: ignore[misc]  # transformers has no types here
    """A style of ours: parameters are cut as ``cut_of`` says, and the forward call sees the local parts."""

    def __init__(self, style: Style) -> None:
        self._style = style

    def should_use_local_tensors(self, _module: Any) -> bool:
        return True

    def shard_param(self, module: Any, param: str, mesh: Any) -> None:
        whole = module._parameters.get(param)
        if whole is None:
            return
        module._parameters[param] = torch.nn.Parameter(
            distribute_tensor(whole, mesh, [self._placement(param, whole.dim())], src_data_rank=None),
            requires_grad=whole.requires_grad,
        )

    def _placement(self, name: str, dimensions: int) -> Placement:
        cut = cut_of(self._style, name, dimensions)
        if cut is None:
            return Replicate()
        place = dimensions + cut.dim
        return Shard(place) if cut.blocks == 1 else _StridedShard(place, split_factor=cut.blocks)

    def install_forward(self, module: Any, mesh: Any) -> Any:
        group = mesh.get_group()

        def reduced(_module: Any, _collective: Collective, tensor: torch.Tensor) -> torch.Tensor:
            torch.distributed.all_reduce(tensor, group=group)
            return tensor

        share = share_forward(module, self._style, degree=mesh.size(), rank=mesh.get_local_rank(), exchange=reduced)

        def forward(*args: Any, **kwargs: Any) -> Any:
            with self.context_around_forward(module, mesh):
                return share(*args, **kwargs)

        module.forward = forward
        return module
