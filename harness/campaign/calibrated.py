"""The calibration that a campaign measures with: one for all of its runs.

On virtual GPUs it is made when the campaign begins, since it takes seconds, and kept in its folder; on real devices it
is the file that ``--calibration`` names, written by ``python -m harness.calibrate --out FILE``.
"""

from pathlib import Path

from harness.campaign.plan import VIRTUAL, Plan
from harness.errors import MeterUnavailable
from harness.measuring.calibration import Calibration
from harness.measuring.precision import Precision
from harness.measuring.protocol import Protocol
from harness.meters.selection import MeterBank

CALIBRATION_FILE = "calibration.json"  # in the folder of the campaign's state


def calibration_file(plan: Plan) -> str | None:
    """The calibration that a plan names, as JSON; raises ``CorruptFile`` and ``UsageError`` where it cannot be used."""
    return None if plan.calibration_file is None else Calibration.read(Path(plan.calibration_file)).to_json()


def virtual_calibration(plan: Plan, state: Path) -> str | None:
    """The calibration of a plan's virtual GPUs as JSON, made once and kept; None for real devices."""
    if not plan.device.startswith(VIRTUAL):
        return None
    kept = state / CALIBRATION_FILE
    if kept.exists():
        return Calibration.read(kept).to_json()
    # Imported late: only virtual campaigns need it.
    from harness.campaign.virtual_calibration import calibration_of

    text = calibration_of(plan).to_json()
    kept.write_text(text + "\n", encoding="utf-8")
    return text


def calibrated(
    text: str | None, bank: MeterBank, protocol: Protocol, precision: Precision
) -> tuple[Protocol, Precision]:
    """Protocol and precision for these meters; raises ``MeterUnavailable`` where the calibration is of others."""
    if text is None:
        return protocol, precision
    calibration = Calibration.from_json(text)
    problem = calibration.difference(provenance=bank.provenance, method=bank.method, facts=bank.facts())
    if problem is not None:
        raise MeterUnavailable(  # the campaign ends at its first run: no other would go better
            f"The calibration is not for these meters: {problem}.\n"
            "Make one here with `python -m harness.calibrate --out FILE`, or leave out --calibration."
        )
    return calibration.protocol(protocol), calibration.precision(precision)
