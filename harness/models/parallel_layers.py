"""A model that is larger than one GPU, its layers dealt out over several that take turns (accelerate's device map)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import dispatch_model

from harness.errors import OutOfMemory, UsageError
from harness.models.parallel_random import fill_randomly
from harness.units import gibibytes

_KEPT_FREE = 0.1  # of each GPU, for activations and the KV cache
_HALVINGS = 20  # of the interval in which the evenest share is looked for: to a millionth


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A module, with all below it, and the GPU that holds it."""

    path: str
    gpu: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSplit:
    """Which GPU holds which part of a model, in the order of the forward call."""

    places: tuple[Place, ...]

    @property
    def gpus(self) -> tuple[int, ...]:
        """Indices of the GPUs in use, in the order of the forward call."""
        return tuple(dict.fromkeys(place.gpu for place in self.places))

    def device_map(self) -> dict[str, int]:
        """As accelerate and ``from_pretrained`` take it."""
        return {place.path: place.gpu for place in self.places}

    def gpu_of(self, path: str) -> int:
        """The GPU of the module at ``path``: that of the innermost place around it, else the first."""
        around = [place for place in self.places if path == place.path or path.startswith(f"{place.path}.")]
        return max(around, key=lambda place: len(place.path)).gpu if around else self.gpus[0]


def gpu_device(gpu: int) -> torch.device:
    """The device of a GPU by its index."""
    return torch.device("cuda", gpu)


def free_gpu_bytes() -> dict[int, int]:
    """Free memory of each visible GPU by index. Raises ``UsageError`` where there is none."""
    if not torch.cuda.is_available():
        raise UsageError("--parallelism layers deals layers out over GPUs, and none is visible here.")
    return {gpu: int(torch.cuda.mem_get_info(gpu)[0]) for gpu in range(torch.cuda.device_count())}


def layer_split(model: Any, *, free_bytes: dict[int, int], weight_bytes: int, name: str) -> LayerSplit:
    """Deal a model on the meta device out over GPUs in one run of modules each, so that all are equally full.

    accelerate's own dealing reserves room for offloading, and left a third of the GPUs idle. Modules that transformers
    says must not be split stay whole; what shares its weights with an earlier module goes there. ``weight_bytes`` is
    the size of the weights as they will be, quantised or not. Raises OutOfMemory with the memory it would take where
    the GPUs are too small; nothing goes to the CPU or to disk.
    """
    pieces = list(_pieces(model))
    scale = weight_bytes / sum(piece.size_bytes for piece in pieces)
    usable = {gpu: size * (1 - _KEPT_FREE) / scale for gpu, size in free_bytes.items()}
    if _dealt(pieces, usable, 1.0) is None:
        raise OutOfMemory(
            f"The layers of {name} do not fit on {len(usable)} GPUs: the weights need {gibibytes(weight_bytes)}, and "
            f"{gibibytes(sum(free_bytes.values()))} are free, of which a tenth is kept for what a run needs beside "
            "them. Nothing is moved to the CPU or to disk.\nUse more GPUs, a smaller dtype or a smaller model."
        )
    low, high = 0.0, 1.0  # shares of the memory, too small and large enough
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _dealt(pieces, usable, middle) is None else (low, middle)
    return LayerSplit(places=tuple(_dealt(pieces, usable, high) or ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """A module that stays whole, or a parameter of a module that does not."""

    path: str
    size_bytes: int  # without what belongs to an earlier piece
    home: str | None  # the earlier piece that all its parameters belong to


def _pieces(model: Any) -> Iterator[_Piece]:
    owners: dict[int, str] = {}
    for path, tensors in _whole(model, "", frozenset(model._no_split_modules or ())):
        new = [tensor for tensor in tensors if owners.setdefault(id(tensor), path) == path]
        shared = [owners[id(tensor)] for tensor in tensors]
        size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in {id(each): each for each in new}.values())
        yield _Piece(path=path, size_bytes=size_bytes, home=shared[0] if shared and not new else None)


def _whole(module: Any, path: str, unsplit: frozenset[str]) -> Iterator[tuple[str, list[torch.Tensor]]]:
    if path and (type(module).__name__ in unsplit or not list(module.children())):
        yield path, [*module.parameters(), *module.buffers()]
        return
    for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        yield f"{path}.{name}" if path else name, [tensor]
    for name, child in module.named_children():
        yield from _whole(child, f"{path}.{name}" if path else name, unsplit)


def _dealt(pieces: list[_Piece], usable: dict[int, float], share: float) -> list[Place] | None:
    """Fill one GPU after the other up to a share of its memory; None where that is not enough."""
    gpus = iter(usable.items())
    gpu, left = -1, -1.0
    at: dict[str, int] = {}
    for piece in pieces:
        while piece.home is None and (gpu < 0 or piece.size_bytes > left):
            following = next(gpus, None)
            if following is None:
                return None
            gpu, left = following[0], following[1] * share
        at[piece.path] = gpu if piece.home is None else at[piece.home]
        left -= piece.size_bytes
    return [Place(path=path, gpu=place) for path, place in at.items()]


def random_layers(model: Any, split: LayerSplit, *, seed: int) -> Any:
    """Random weights for a model on the meta device, each made on its own GPU, ready to run."""
    fill_randomly(
        model,
        seed=seed,
        device_of=lambda path: gpu_device(split.gpu_of(path)),
        keep=lambda _path, tensor: tensor,
    )
    return dispatch_model(model, device_map=split.device_map(), skip_keys=model._skip_keys_device_placement)
