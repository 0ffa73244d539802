"""All importers, by the word that names them on the command line."""

from harness.dataset.importers.aiconfigurator import Aiconfigurator
from harness.dataset.importers.co2_meter import Co2Meter
from harness.dataset.importers.energaizer import Energaizer
from harness.dataset.importers.energy_inference import EnergyInference
from harness.dataset.importers.importing import Importer
from harness.dataset.importers.leadgreen import LeadGreen
from harness.dataset.importers.ml_energy import MlEnergy
from harness.dataset.importers.splitwise import Splitwise
from harness.errors import UsageError

IMPORTERS: tuple[Importer, ...] = (
    Aiconfigurator(),
    Co2Meter(),
    Energaizer(),
    EnergyInference(),
    LeadGreen(),
    MlEnergy(),
    Splitwise(),
)


def importer_named(name: str) -> Importer:
    """The importer of this name; raises ``UsageError`` naming those there are."""
    for importer in IMPORTERS:
        if importer.name == name:
            return importer
    known = ", ".join(sorted(importer.name for importer in IMPORTERS))
    raise UsageError(f"{name[:40]!r} is no source that can be imported.\nThe sources are: {known}, table.")
