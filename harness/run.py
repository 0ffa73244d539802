"""``python -m harness.run``: carry out a plan and write a dataset folder with a report.

Nothing heavy is imported before the command line has been understood, so ``--help`` answers at once.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from harness.campaign.options import Invocation, parse
from harness.campaign.plan import VIRTUAL, Plan
from harness.errors import HarnessError
from harness.streams import Forgiving, speak_any_encoding

if TYPE_CHECKING:
    from rich.console import Console

    from harness.campaign.focused import Learner
    from harness.campaign.jobs import Job

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code. Expected errors are printed, never raised."""
    speak_any_encoding()
    signal.signal(signal.SIGTERM, lambda *_: _interrupt())
    try:
        return _run(parse(sys.argv[1:] if arguments is None else arguments))
    except HarnessError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted: finished runs are kept; the same command goes on with the rest", file=sys.stderr)  # noqa: T201
        return _INTERRUPTED


def _interrupt() -> None:
    raise KeyboardInterrupt


def _run(invocation: Invocation) -> int:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from rich.console import Console

    from harness.campaign.campaign import Campaign, look_around
    from harness.campaign.launchers import Launcher, LocalLauncher
    from harness.campaign.progress import ConsoleObserver, closing_text, plan_table, result_table
    from harness.campaign.sampling import with_held_out
    from harness.dataset.reading import read_rows
    from harness.records import RunRow, Status

    output = Forgiving(sys.stdout)
    console = Console(file=cast("IO[str]", output), highlight=False)
    _warn_of_bad_rows(console, invocation.plan)
    plan = with_held_out(invocation.plan)
    out = invocation.out or plan.default_folder
    if invocation.dry_run:
        console.print(plan_table(look_around(plan, to_run=False).planned(plan)))
        _say_what_is_chosen(console, plan)
        return 0
    if invocation.node_rank > 0:
        return _serve(plan, invocation, console)
    learner = _learner(plan, invocation.predictor_checkpoint) if plan.sampling == "focused" else None
    with ExitStack() as stack:
        campaign = stack.enter_context(Campaign.open(out, plan, lambda: look_around(plan)))
        for note in campaign.queue.notes:
            console.print(note, markup=False)
        launcher: Launcher = LocalLauncher(state=campaign.folder.state)
        if plan.device.startswith(VIRTUAL):
            from harness.campaign.virtual_launcher import VirtualLauncher

            console.print(f"{plan.device}: simulated. Nothing here is measured, and no release takes it.", markup=False)
            launcher = stack.enter_context(VirtualLauncher(campaign.upcoming()))
        if invocation.rendezvous is not None:
            from harness.campaign.nodes import Hub, Member, NodesLauncher

            hub = Hub.opened(invocation.rendezvous, plan.nodes)
            stack.callback(hub.close)
            console.print(f"waiting for {plan.nodes - 1} more machine(s) at {invocation.rendezvous}", markup=False)
            hub.wait_for_others(Member.here(plan, campaign.surroundings))
            launcher = NodesLauncher(local=LocalLauncher(state=campaign.folder.state), hub=hub)
        more: Callable[[], Sequence[Job]] = tuple
        if learner is not None:
            from harness.campaign.focused import FocusedRuns

            _say_what_is_chosen(console, plan)
            more = focused = FocusedRuns(campaign, learner)
            focused.check()
        with ConsoleObserver(console, campaign.queue.runs()) as observer:
            for _ in campaign.carry_out(launcher, observer, more):
                pass
        campaign.store.close()
        from harness.report.page import write_report

        report = write_report(out, out / "report.html")
    rows = sorted(read_rows(out, RunRow), key=lambda row: row.started_at_utc or "")
    console.print(result_table(rows))
    console.print(closing_text(rows, out, report), markup=False, soft_wrap=True)
    output.flush()
    if output.failure is not None:
        print(f"not everything could be printed: {output.failure.strerror}. The dataset is in {out}", file=sys.stderr)  # noqa: T201
    return 0 if any(row.status is Status.OK for row in rows) else 1


def _learner(plan: Plan, checkpoint: Path | None) -> "Learner":
    """What chooses the requests of focused sampling, from a predictor; raises ``UsageError`` where there is none."""
    from harness.campaign.site import hardware_table
    from predictor.focus import load_learner

    return load_learner(checkpoint, table=hardware_table(plan))


def _say_what_is_chosen(console: "Console", plan: Plan) -> None:
    if plan.sampling == "focused":
        from harness.campaign.focused import held_out_sha256

        console.print(
            f"{len(plan.held_out)} request(s) are held out (sha256 {held_out_sha256(plan)}) and measured first; "
            f"{plan.samples} more are chosen, {plan.round_size} at a time, where the predictor is least certain.",
            markup=False,
        )


def _serve(plan: Plan, invocation: Invocation, console: "Console") -> int:
    """Take part in the campaign of machine 0; everything that is recorded is recorded there."""
    from harness.campaign.campaign import look_around
    from harness.campaign.nodes import serve

    runs = serve(
        plan,
        invocation.rendezvous or "",
        invocation.node_rank,
        look_around(plan),
        lambda text: console.print(text, markup=False, soft_wrap=True),
    )
    console.print(f"the campaign has ended: this machine took part in {runs} run(s)", markup=False)
    return 0


def _warn_of_bad_rows(console: "Console", plan: Plan) -> None:
    """A trace with unreadable rows is used without them, and says so."""
    from harness.campaign.traces import load_trace

    if plan.sampling in {"trace", "focused"} and (trace := load_trace(plan.trace)).bad_rows:
        console.print(
            f"{plan.trace}: {trace.bad_rows} rows without two positive whole numbers are left out, "
            f"{trace.requests} are used.",
            markup=False,
        )


if __name__ == "__main__":
    sys.exit(main())
