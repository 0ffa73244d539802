"""How much a folder may hold before anything of it is read: what a footer claims costs nothing to check."""

from dataclasses import dataclass

from harness.units import BYTES_PER_GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The most that is read. The defaults fit any dataset of one's own; for a stranger's, ask for less."""

    files: int = 100_000  # under data/
    file_bytes: int = 8 * BYTES_PER_GIB  # of one file
    footer_bytes: int = 64 * 1024**2  # of one file
    row_group_bytes: int = 2 * BYTES_PER_GIB  # uncompressed; one is held in memory at a time
    row_groups: int = 100_000  # of one file
    table_rows: int = 200_000_000
    table_bytes: int = 256 * BYTES_PER_GIB  # uncompressed
    text_column_bytes: int = 4 * BYTES_PER_GIB  # of one column, every text written out as often as it occurs
    name_bytes: int = 4_000  # of a name: model, operator, identifier
    text_bytes: int = 4 * 1024**2  # of any other text: a graph, a configuration

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for a limit that lets nothing through."""
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, and must be at least 1")
