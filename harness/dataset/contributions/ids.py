"""Ids of contributed rows: the same for the same rows, and without a way back to the machine they come from."""

import hashlib
import json
import re

from harness.records import GraphRow
from harness.tracing.graph import KernelGraph, edges_from, kernels_from

RUN_ID = re.compile(r"[0-9a-f]{20}")
ENVIRONMENT_ID = re.compile(r"[0-9a-f]{16}")


def public_run_id(run_id: str, lab: str, started_at_utc: str | None) -> str:
    """The id under which a lab's run is published, 20 hexadecimal digits.

    A campaign's own id is the same wherever the same run is made, so two labs would share it.
    """
    return _digest("run", run_id, lab, started_at_utc)[:20]


def public_campaign_id(campaign_id: str, lab: str) -> str:
    """A campaign's id is a hash of its plan, in which paths may stand; 16 hexadecimal digits."""
    return _digest("campaign", campaign_id, lab)[:16]


def public_device_sha256(device_sha256: str, lab: str) -> str:
    """One device has one hash within a lab, and another one in every other lab."""
    return _digest("device", device_sha256, lab)


def graph_of(row: GraphRow) -> KernelGraph:
    """The graph that a row holds; raises ``ValueError``, ``TypeError``, ``KeyError`` where it holds none."""
    return KernelGraph(
        model=row.model,
        phase=row.phase,
        batch_size=row.batch_size,
        query_tokens=row.query_tokens,
        context_tokens=row.context_tokens,
        dtype=row.dtype,
        attention=row.attention,
        tensor_parallel=row.tensor_parallel,
        kernels=kernels_from(json.loads(row.kernels)),
        edges=edges_from(json.loads(row.edges)),
    )


def _digest(*parts: str | None) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
