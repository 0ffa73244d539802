"""Openly licensed measurements that anybody can install: which packages hold them, and where they lie.

A package is found without being run: its code stays asleep, only its data files are read.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from harness.dataset.importers.importing import Importer
from harness.dataset.importers.registry import importer_named
from harness.errors import MissingExtra


@dataclass(frozen=True, slots=True, kw_only=True)
class Packaged:
    """A package with data, and the importer that reads it."""

    distribution: str
    module: str
    importer: str


PACKAGES = (
    Packaged(distribution="aiconfigurator-core", module="aiconfigurator_core", importer="aiconfigurator"),
    Packaged(distribution="leadgreen-mcp", module="leadgreen_mcp", importer="leadgreen-mcp"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An importer, and the folder it is to read."""

    importer: Importer
    path: Path


def installed_reference_data() -> tuple[Found, ...]:
    """Both packages; raises ``MissingExtra`` where one is not installed."""
    return tuple(Found(importer=importer_named(packaged.importer), path=_folder_of(packaged)) for packaged in PACKAGES)


def _folder_of(packaged: Packaged) -> Path:
    spec = find_spec(packaged.module)  # of a package at the top: nothing of it runs
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra("reference-data", packaged.distribution, "pip install 'joulegraph[reference-data]'")
    return Path(next(iter(spec.submodule_search_locations)))
