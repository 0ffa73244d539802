"""The calibration that a campaign measures with: one for all of its runs, kept in its folder.

On virtual GPUs it is made when the campaign begins, since it takes seconds; on real devices it is the file that
``--calibration`` names, written by ``python -m harness.calibrate --out FILE``.
"""

from pathlib import Path

from harness.campaign.plan import VIRTUAL, Plan
from harness.errors import UsageError
from harness.measuring.calibration import Calibration
from harness.measuring.precision import Precision
from harness.measuring.protocol import Protocol
from harness.meters.selection import MeterBank

CALIBRATION_FILE = "calibration.json"  # in the folder of the campaign's state


def campaign_calibration(plan: Plan, state: Path) -> str | None:
    """The calibration of a campaign as JSON, made or read once; None: there is none.

    Raises ``CorruptFile`` and ``UsageError`` for a file that cannot be used.
    """
    kept = state / CALIBRATION_FILE
    if kept.exists():
        return Calibration.read(kept).to_json()
    if plan.calibration_file is not None:
        text = Calibration.read(Path(plan.calibration_file)).to_json()
    elif plan.device.startswith(VIRTUAL):
        # Imported late: only virtual campaigns need it.
        from harness.campaign.virtual_calibration import calibration_of

        text = calibration_of(plan).to_json()
    else:
        return None
    kept.write_text(text + "\n", encoding="utf-8")
    return text


def calibrated(
    text: str | None, bank: MeterBank, protocol: Protocol, precision: Precision
) -> tuple[Protocol, Precision]:
    """Protocol and precision for these meters; raises ``UsageError`` where the calibration is of other ones."""
    if text is None:
        return protocol, precision
    calibration = Calibration.from_json(text)
    problem = calibration.difference(provenance=bank.provenance, method=bank.method, facts=bank.facts())
    if problem is not None:
        raise UsageError(
            f"The calibration is not for these meters: {problem}.\n"
            "Make one here with `python -m harness.calibrate --out FILE`, or leave out --calibration."
        )
    return calibration.protocol(protocol), calibration.precision(precision)
