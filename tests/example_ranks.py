"""Synthetic rows of a run that spans several ranks: round numbers, so that sums can be worked out in the head."""

from dataclasses import replace

from harness.kernels import KernelKind, Phase, shape_text
from harness.records import KernelRow, RankTimeRow, ReadingRow, RunRow
from tests.example_rows import known


def example_rank_times(run: RunRow, readings: tuple[ReadingRow, ...]) -> tuple[RankTimeRow, ...]:
    """The ranks of a run, in each of its windows: each rank works 1 % of the window less than the one after it.

    The last one works for 98 % of the first window, 96 % of the second and so on.
    """
    ranks = known(run.tensor_parallel)
    return tuple(
        RankTimeRow(
            run_id=run.run_id,
            part=reading.part,
            trial=reading.trial,
            rank=rank,
            node=rank * run.nodes // ranks,
            device="cuda:0" if run.n_gpus else "cpu",
            passes=reading.passes,
            duration_s=known(reading.duration_s) * (0.98 - 0.02 * reading.trial - 0.01 * (ranks - 1 - rank)),
            wait_s=known(reading.duration_s) * 0.01 * (ranks - 1 - rank),
        )
        for reading in readings
        for rank in range(ranks)
    )


def _collectives(run: RunRow, phase: Phase, rank: int) -> tuple[KernelRow, ...]:
    """An all-reduce behind each half layer and an all-gather of the logits, at 1 GB/s; the last rank waits for nobody.

    The first rank waits half as long again as its data move; the waits of the others lie evenly between.
    """
    ranks, batch_size, prefill = known(run.tensor_parallel), known(run.batch_size), phase is Phase.PREFILL
    tokens, steps = (known(run.prompt_tokens), 1) if prefill else (1, known(run.output_tokens) - 1)
    rows = []
    for number, (kind, op, module, launches, elements) in enumerate(
        (
            (KernelKind.ALL_REDUCE, "c10d::allreduce_", "model.layers.*.mlp", 60 * steps, tokens * 576),
            (KernelKind.ALL_GATHER, "c10d::_allgather_base_", "lm_head", steps, 49152 // ranks),
        )
    ):
        message_bytes = 4 * batch_size * elements
        rounds = ranks - 1 if kind is KernelKind.ALL_GATHER else 2 * (ranks - 1) / ranks
        link_bytes = int(rounds * message_bytes) * launches
        moving_s = link_bytes / 1e9
        wait_s = 0.5 * moving_s * (ranks - 1 - rank) / (ranks - 1)
        row = KernelRow(
            run_id=run.run_id,
            phase=phase,
            rank=rank,
            kernel_id=f"{phase}-c{number}",
            kind=kind,
            op=op,
            module=module,
            dtype="float32",
            shape=shape_text({"elements": batch_size * elements, "ranks": ranks}),
            launches=launches,
            flop=0,
            read_bytes=message_bytes * launches,
            write_bytes=message_bytes * launches,
            link_bytes=link_bytes,
            duration_s=moving_s + wait_s,
            traced_duration_s=1.4 * (moving_s + wait_s),
            wait_s=wait_s,
        )
        rows.append(row)
    return tuple(rows)


def with_collectives(run: RunRow, phase: Phase, kernels: tuple[KernelRow, ...], *, rank: int) -> tuple[KernelRow, ...]:
    """The kernels on one of several ranks: the same on each, and collectives, which the graph has as its last."""
    places = sum(kernel.graph_kernel is not None for kernel in kernels)
    return (
        *(replace(kernel, rank=rank) for kernel in kernels),
        *(
            replace(collective, graph_kernel=places + number)
            for number, collective in enumerate(_collectives(run, phase, rank))
        ),
    )
