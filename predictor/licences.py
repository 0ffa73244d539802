"""What a checkpoint that is given away may be learned from."""

from harness.errors import UsageError
from harness.words import Provenance

# Licences that allow to publish what was learned, with attribution.
OPEN = ("Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-4.0", "CC0-1.0")
TRUSTED = (Provenance.MEASURED, Provenance.IMPORTED)


def check_provenance(found: str, allowed: tuple[str, ...], where: str) -> None:
    """Raise ``UsageError`` for rows that nobody measured, unless they were asked for by name."""
    if found in TRUSTED or found in allowed:
        return
    raise UsageError(
        f"{where} holds {found} rows, and a predictor learns from measurements only.\n"
        f"To train on them all the same: --allow {found}. The checkpoint then says so."
    )


def is_open(licence: str | None) -> bool:
    """Whether a licence is among ``OPEN``."""
    return licence in OPEN
