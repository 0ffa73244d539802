"""Whether the values of a plan go together; a file of its own because a plan is long."""

from typing import TYPE_CHECKING

from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.campaign.plan import Plan


def check_spread(plan: "Plan") -> None:
    """Whether ranks and machines go together."""
    if plan.parallelism == "layers" and plan.device == "cpu":
        raise UsageError("parallelism = layers splits a model over GPUs.\nOn the CPU use --parallelism tensor.")
    if plan.nodes == 1:
        return
    if plan.parallelism == "layers":
        raise UsageError(
            f"parallelism = layers is one process, so it cannot span nodes = {plan.nodes}.\n"
            "Use --parallelism tensor, or one machine."
        )
    uneven = [count for count in plan.gpus or (1,) if count % plan.nodes]
    if uneven:
        raise UsageError(
            f"{uneven[0]} (--gpus) cannot be spread evenly over {plan.nodes} machines (--nodes).\n"
            f"Ask for a multiple of {plan.nodes}: --gpus counts those of all machines together."
        )
