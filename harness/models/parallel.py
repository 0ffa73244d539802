"""Tensor parallelism of a model: which plan it has, which degrees work, and what a rank's share looks like.

    plan = tensor_plan(model)                          # the model may be on the meta device
    check_degree(model, plan, 4, name)                 # UsageError that names the degrees that work
    share_on_meta(model, plan, degree=4, observe=…)    # its forward calls are now those of rank 0 of 4

or step by step: ``local_shape`` of each parameter, ``localise`` for counts and slopes, ``plan.module_style(path)`` and
``collectives_of`` for what the ranks exchange.
"""

from harness.models.parallel_degrees import Count, check_degree, counts_of, working_degrees
from harness.models.parallel_local import localise
from harness.models.parallel_share import (
    Exchange,
    ExchangeCall,
    local_elements,
    local_shape,
    share_forward,
    share_on_meta,
)
from harness.models.parallel_styles import Collective, Rule, Style, collectives_of, shard_of
from harness.models.plans import TensorPlan, tensor_plan

__all__ = [
    "Collective",
    "Count",
    "Exchange",
    "ExchangeCall",
    "Rule",
    "Style",
    "TensorPlan",
    "check_degree",
    "collectives_of",
    "counts_of",
    "local_elements",
    "local_shape",
    "localise",
    "shard_of",
    "share_forward",
    "share_on_meta",
    "tensor_plan",
    "working_degrees",
]
