"""The networks behind the scores: each trained once per seed, on one side of a split of kernels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from benchmarks.rivals_kernels import KernelCase
from benchmarks.scores_splits import KernelSplit, unseen_gpus, unseen_shapes
from harness.errors import UsageError
from harness.hardware import find
from predictor.checkpoint import FORMAT, Card, Checkpoint, SeenHardware
from predictor.familiar import attributes, near
from predictor.features import NAMES
from predictor.kernel_examples import KernelExamples
from predictor.kernel_training import KernelBatches, KernelSettings, fit_kernels, fit_physics
from predictor.network import KernelNetwork
from predictor.pass_model import PassModel

Told = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """A network with its physics fitted alone beside it."""

    network: KernelNetwork
    physics: KernelNetwork  # never corrected: the fitted Roofline
    gpus: tuple[str, ...]  # that it was trained on


@dataclass(slots=True, kw_only=True)
class Shelf:
    """Networks of one seed, trained when first asked for."""

    examples: KernelExamples
    data: KernelBatches
    settings: KernelSettings
    left_out_epochs: int  # of networks for which GPUs are left out
    told: Told
    stored: Path | None = None  # weights trained on the training side of the split by shapes
    _shapes: Kernels | None = None
    _without: dict[tuple[str, ...], Kernels] = field(default_factory=dict)

    def shapes_case(self) -> KernelCase:
        """The split by shapes."""
        return self._case(unseen_shapes(self.examples))

    def without_case(self, gpus: Sequence[str]) -> KernelCase:
        """The split that leaves GPUs out."""
        return self._case(unseen_gpus(self.examples, gpus))

    def _case(self, split: KernelSplit) -> KernelCase:
        return KernelCase(examples=self.examples, data=self.data, split=split)

    def shapes(self) -> Kernels:
        """Trained on four fifths of all shapes."""
        if self._shapes is None:
            network = None if self.stored is None else stored_network(self.stored, self.settings)
            self._shapes = self._kernels(self.shapes_case(), self.settings, network)
        return self._shapes

    def without(self, gpus: Sequence[str]) -> Kernels:
        """Trained on all other GPUs."""
        key = tuple(sorted(set(gpus) & set(self.examples.gpu)))
        if not key:
            return self.shapes()
        if key not in self._without:
            settings = replace(self.settings, epochs=self.left_out_epochs)
            self._without[key] = self._kernels(self.without_case(key), settings, None)
        return self._without[key]

    def _kernels(self, case: KernelCase, settings: KernelSettings, network: KernelNetwork | None) -> Kernels:
        physics = KernelNetwork(width=8, layers=1)
        fit_physics(physics, case.data, case.split.train, settings)
        return Kernels(
            network=network or trained(case, settings, self.told),
            physics=physics.eval(),
            gpus=tuple(sorted(set(case.examples.gpu[case.split.train]))),
        )


def trained(case: KernelCase, settings: KernelSettings, told: Told) -> KernelNetwork:
    """A network trained on one side of a split."""
    torch.manual_seed(settings.seed)
    network = KernelNetwork(width=settings.width, layers=settings.layers)
    told(f"seed {settings.seed}: {len(case.split.train):,} kernels; held out: {case.split.held_out}")
    fit_physics(network, case.data, case.split.train, settings)
    fit_kernels(
        network,
        case.data,
        rows=case.split.train,
        watched=np.random.default_rng(settings.seed).permutation(case.split.watched),
        settings=settings,
        told=lambda epoch, loss, seen: told(f"epoch {epoch + 1}: loss {loss:.4f}, watched {seen:.4f}"),
    )
    return network.eval()


_KERNELS = "kernels."  # of a whole checkpoint, which knows no shape of the test side either


def stored_network(path: Path, settings: KernelSettings) -> KernelNetwork:
    """A network whose weights were kept, as safetensors or by torch; raises ``UsageError``."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    network = KernelNetwork(width=settings.width, layers=settings.layers)
    try:
        weights = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
        mine = {name.removeprefix(_KERNELS): value for name, value in weights.items() if name.startswith(_KERNELS)}
        network.load_state_dict(mine or weights)
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0][:200]
        raise UsageError(
            f"{path} holds no kernel network of this version: {reason}.\nLeave it out to train one."
        ) from error
    return network.eval()


def unfamiliar(gpu: str, seen: Sequence[str]) -> bool:
    """Whether a GPU is unlike all that were trained on, so that the network may not read its attributes."""
    return not bool(near(attributes([find(gpu)]), attributes([find(name) for name in seen]))[0])


def start_of(kernels: Kernels, settings: KernelSettings) -> Checkpoint:
    """A checkpoint that knows kernels and no request, to train on requests from."""
    devices = [find(name) for name in kernels.gpus]
    card = Card(
        format=FORMAT,
        features=NAMES,
        width=settings.width,
        layers=settings.layers,
        learned_from=(),
        allowed=(),
        seen_hardware=tuple(
            SeenHardware(name=device.name, attributes=tuple(map(float, row)))
            for device, row in zip(devices, attributes(devices), strict=True)
        ),
        seen_runtimes=(),
        spreads=(),
        scores={},
        splits={},
        settings={},
        seed=settings.seed,
        commit=None,
        made_at_utc=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return Checkpoint(kernels=kernels.network, passes=PassModel(), card=card)
