"""Measure one run in a process of its own: ``python -m harness.campaign.worker RESULT [MEETING] < task``.

A run of several ranks is measured by processes that this one starts and watches; MEETING says where machines meet.
The task is one line of JSON on standard input, which stays open as the lifeline to the campaign. The measurement,
whatever its status, is written to RESULT; a worker that leaves no result has died.
"""

import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path

from harness.campaign.launchers import CANNOT_MEASURE, CANNOT_WRITE, SPOILED
from harness.campaign.parent import die_with_parent
from harness.campaign.rendezvous import Meeting
from harness.campaign.task import Task
from harness.errors import HarnessError, MeterFailed
from harness.records import Measurement


def main(arguments: list[str]) -> int:
    """Read the task, measure, write the result."""
    task = Task.from_json(sys.stdin.readline())  # end of file, if the campaign is gone already, is no task
    die_with_parent(sys.stdin.fileno())
    # Imported only now: torch takes seconds, and the lifeline must hold from the start.
    if task.job.deployment.ranks > 1:
        from harness.campaign.ranks_agent import conduct

        return conduct(task, Path(arguments[0]), Meeting.from_json(arguments[1]) if len(arguments) > 1 else None)
    from harness.campaign.execution import carry_out

    try:
        measurement = carry_out(task, started_at_utc=datetime.now(UTC).isoformat(timespec="seconds"))
    except MeterFailed as error:
        print(error, file=sys.stderr)  # noqa: T201  the campaign reads the end of this log
        return SPOILED if error.passing else CANNOT_MEASURE
    except HarnessError as error:
        print(error, file=sys.stderr)  # noqa: T201  the campaign reads the end of this log
        return CANNOT_MEASURE
    return write_result(measurement, Path(arguments[0]))


def write_result(measurement: Measurement, result: Path) -> int:
    """Write the measurement whole or not at all; returns the exit code."""
    from harness.dataset.transport import measurement_to_json

    unfinished = result.with_suffix(".part")
    try:
        unfinished.write_text(measurement_to_json(measurement), encoding="utf-8")
        unfinished.replace(result)
    except OSError as error:
        print(error, file=sys.stderr)  # noqa: T201  the campaign reads the end of this log
        return CANNOT_WRITE
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Exception:  # noqa: BLE001  the campaign reads the end of this log
        traceback.print_exc()
        sys.exit(1)
