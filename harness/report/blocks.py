"""What a page is made of: sections of groups of charts and tables, all text still unescaped."""

from dataclasses import dataclass

from harness.report.plot import Figure
from harness.report.setups import LegendEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """Head of a table column; ``note`` is shown when pointed at."""

    title: str
    number: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One entry of a table. Rows are sorted by ``key``, by ``text`` where there is none."""

    text: str
    key: float | None = None
    note: str = ""
    code: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table that readers can sort by its columns; a long one scrolls."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @property
    def long(self) -> bool:
        """Whether it gets a frame of its own to scroll in."""
        return len(self.rows) > 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Charts and tables that share a legend."""

    title: str = ""
    legend: tuple[LegendEntry, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the page. ``views`` are the choices of what the charts of the section show."""

    name: str
    title: str
    lead: str  # what is shown and how it came about
    groups: tuple[Group, ...]
    views: tuple[str, ...] = ()
    choice: str = "Show"  # said before the views


@dataclass(frozen=True, slots=True, kw_only=True)
class Banner:
    """How far the numbers of the page may be trusted."""

    kind: str
    title: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A headline number, with what it is of."""

    title: str
    value: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLink:
    """A file or folder of the dataset, as an address relative to the page."""

    href: str
    name: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The whole page."""

    title: str
    mark: str  # stands over the page, over every section and on every printed sheet; empty: nothing to warn of
    subtitle: str
    banners: tuple[Banner, ...]
    tiles: tuple[Tile, ...]
    sections: tuple[Section, ...]
    methods: tuple[str, ...]
    files: tuple[FileLink, ...]
    footer: str
