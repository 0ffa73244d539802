"""Whether the values of a plan go together; a file of its own because a plan is long."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.campaign.fields import Field, shown
from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.campaign.plan import Plan

_MAY_BE_EMPTY = {"held_out"}  # what a plan fills in itself


def check_sampling(plan: "Plan", fields: Sequence[Field], *, most: int) -> None:
    """Whether what describes requests is what the plan's sampling uses, and is there."""
    for field in fields:
        users = field.option.used_by
        if users and plan.sampling not in users and getattr(plan, field.name) != field.default:
            wanted = " or ".join(users)
            raise field.error(
                f"does nothing when requests come from sampling = {plan.sampling}",
                f"Leave it out, or ask for sampling = {wanted} (--sampling {users[0]}).",
            )
        required = plan.sampling in users and field.name not in _MAY_BE_EMPTY
        if required and not getattr(plan, field.name):
            raise field.error(f"is empty, but sampling = {plan.sampling} needs it", "Give at least one.")
    size = len(plan.batch_sizes) * len(plan.prompt_tokens) * len(plan.output_tokens)
    if size > most:
        raise UsageError(f"The grid has {size:,} requests; at most {most:,} are allowed.\nGive fewer sizes.")


def check_focused(plan: "Plan") -> None:
    """Whether a plan whose requests are chosen on the way can be made as it asks."""
    if plan.sampling == "focused" and plan.time_budget_s is not None:
        raise UsageError(
            "time_budget_s (--time-budget) shortens a plan's requests so that all of them fit, and those of "
            "sampling = focused are not known before the others are measured.\n"
            "Leave it out, and ask for fewer --samples; the campaign can be stopped and continued at any time."
        )


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


def check_combinations(plan: "Plan") -> None:
    """Whether protocol, device and models go together."""
    if plan.kernel_energy not in {"auto", "apportioned"} and not plan.trace_kernels:
        raise UsageError(
            f"kernel_energy = {plan.kernel_energy} needs to know the kernels, and trace_kernels is off.\n"
            "Leave out --no-trace-kernels."
        )
    if plan.device == "cpu" and plan.attention == "flash_attention_2":
        raise UsageError("attention = flash_attention_2 needs a GPU.\nOn the CPU use sdpa or eager.")
    if plan.revision is not None and len(plan.models) > 1:
        raise UsageError(
            f"revision = {shown(plan.revision)} names a commit of one repository, but there are {len(plan.models)} "
            "models.\nMake one plan per model, or leave the revision out."
        )
