"""aiconfigurator: millions of kernels, each measured alone, with time and for some with power; and served models.

Source: https://github.com/ai-dynamo/aiconfigurator (clone, or the package ``aiconfigurator-core``). A row of a kernel
file is the mean time of one launch in a loop and, in some files, the mean power of the board over that loop; the energy
of a launch is their product. One run holds what one backend of one version did on as many GPUs of one kind, at one
power limit.
"""

from collections.abc import Iterator
from pathlib import Path

from harness.dataset.importers.account import Account, Rejection
from harness.dataset.importers.aiconfigurator_groups import Unread, groups_of
from harness.dataset.importers.aiconfigurator_layout import Layout, find_layout
from harness.dataset.importers.aiconfigurator_tables import group_batch
from harness.dataset.importers.duck import database
from harness.dataset.importers.importing import ImportedBatch
from harness.dataset.importers.silicon import read_silicon
from harness.records import SourceRow

_MEASURED = (
    "time of a kernel launched in a loop (device events); for some files mean board power over that loop (NVML, polled "
    "every 100 ms), of which calls under 0.1 ms see a loop shorter than the meter's window; end to end: time to the "
    "first token and time per output token of a server"
)
_DERIVED = (
    "energy of one launch = power × time, gross; FLOP and bytes from the sizes, by the formulas of "
    "harness.tracing (attention: full square of query and context); launches: 1. The clone and the package share most "
    "of their files: sources aiconfigurator and aiconfigurator-core are one, do not count both"
)


class Aiconfigurator:
    """Kernels and end-to-end latencies, from a clone or from the installed package."""

    name = "aiconfigurator"
    summary = "kernels measured alone (time, for some power) on 10 GPUs, and served models (TTFT, TPOT)"
    licence: str | None = "Apache-2.0"

    def read(self, path: Path) -> Iterator[ImportedBatch]:
        """One batch for each GPU, backend and version, then one of the served models.

        Raises ``DatasetError`` where there are no data, ``CorruptFile`` where a file is damaged.
        """
        layout = find_layout(path)
        source = source_row(layout)
        with database() as connection:
            found = groups_of(connection, layout)
            yield from (_unread(unread) for unread in found.unread)
            for group in found.groups:
                yield group_batch(connection, group, source)
        yield from read_silicon(layout, source)


def source_row(layout: Layout) -> SourceRow:
    """What the dataset says of this source."""
    return SourceRow(
        source=layout.source,
        title="aiconfigurator: performance measurements of LLM kernels and deployments",
        url="https://github.com/ai-dynamo/aiconfigurator",
        version=layout.version,
        licence="Apache-2.0",
        citation="NVIDIA, aiconfigurator, https://github.com/ai-dynamo/aiconfigurator",
        measured=_MEASURED,
        derived=_DERIVED,
    )


def _unread(unread: Unread) -> ImportedBatch:
    rejection = Rejection(rule=unread.rule, rows=unread.rows, example=unread.place)
    return ImportedBatch(tables=None, account=Account(rows_in=unread.rows, rows_kept=0, rejections=(rejection,)))
