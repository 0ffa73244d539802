"""One rank of a run: ``python -m harness.campaign.ranks_main RESULT TASK``, started by the elastic launcher.

Rank 0 leads and leaves the measurement in RESULT; the others follow. A rank that fails reports why on the board and
exits; the agent then ends the others.
"""

import os
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from harness.campaign.parent import die_with_agent

if TYPE_CHECKING:
    from harness.campaign.ranks import Place, Team
    from harness.campaign.ranks_board import Board
    from harness.campaign.task import Task

_OTHERS_REPORT_S = 2.0  # ranks that waited in vain for the same one do not time out in the same instant
_LOOK_S = 0.1


def main(arguments: list[str], take_part: "Callable[[Task, Team, Path], None] | None" = None) -> int:
    """Do this rank's part; returns the exit code of the process."""
    die_with_agent(int(os.environ["JOULEGRAPH_AGENT_PID"]))
    # Imported only now: torch takes seconds, and the watch must hold from the start.
    from harness.campaign.ranks import Place, Team
    from harness.campaign.ranks_board import Board, Ending, report_of
    from harness.campaign.task import Task

    result, task = Path(arguments[0]), Task.from_json(Path(arguments[1]).read_text(encoding="utf-8"))
    place, board = Place.from_environment(), Board.at(os.environ["JOULEGRAPH_BOARD"])
    try:
        import torch

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        board.arrive(place.ranks)
        team = Team.join(place, device=task.job.deployment.device, timeout_s=task.collective_timeout_s)
        (take_part or _take_part)(task, team, result)
        team.leave()
    except Exception as error:  # noqa: BLE001  whatever it is ends the run, with this as its reason
        traceback.print_exc()
        report = report_of(place.rank, error)
        board.report(report)
        if report.ending is Ending.LATE:
            _let_others_report(board, place)
        return 1
    return 0


def _take_part(task: "Task", team: "Team", result: Path) -> None:
    from harness.campaign.execution import measure
    from harness.campaign.ranks_crew import Follower, Lead
    from harness.campaign.worker import write_result
    from harness.errors import CannotWrite

    if team.place.rank > 0:
        Follower(task, team).follow()
        return
    lead = Lead(task, team)
    measurement = measure(task, datetime.now(UTC).isoformat(timespec="seconds"), lead)
    if write_result(measurement, result):
        raise CannotWrite(f"the measurement could not be written to {result}")
    lead.dismiss()


def _let_others_report(board: "Board", place: "Place") -> None:
    """Give ranks that wait in vain for the same one the time to say so: the ranks that do not are the reason."""
    until_s = time.monotonic() + _OTHERS_REPORT_S
    while len({report.rank for report in board.reports()}) < place.ranks and time.monotonic() < until_s:
        time.sleep(_LOOK_S)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # groups whose other ends are gone may not hold up the interpreter's own end
