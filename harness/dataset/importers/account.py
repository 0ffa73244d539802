"""What became of the rows of a source: none is lost without a rule that says so."""

from collections.abc import Iterable
from dataclasses import dataclass

from harness.errors import DatasetError


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Rows of a source that are not in the dataset, and the rule that left them out."""

    rule: str
    rows: int
    example: str  # one of them, short, as the source writes it; may hold anything, so print ``shown``

    @property
    def shown(self) -> str:
        """The example with nothing in it that a terminal would obey."""
        return "".join(character if character.isprintable() else "�" for character in self.example)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flagged:
    """Rows of a source that are in the dataset and bear a flag."""

    rule: str
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Rows in = rows kept + rows rejected.

    A row is kept if its numbers are in a table, be it as one of the repeats of a run (`readings`).
    """

    rows_in: int
    rows_kept: int
    rejections: tuple[Rejection, ...] = ()
    flagged: tuple[Flagged, ...] = ()

    def __post_init__(self) -> None:
        """Raises ``DatasetError`` where the sum does not close: a row got lost, which is a defect of an importer."""
        if self.rows_in != self.rows_kept + self.rows_rejected:
            raise DatasetError(
                f"{self.rows_in} rows were read, {self.rows_kept} kept and {self.rows_rejected} rejected by a rule: "
                f"the rest was lost.\nThis is a defect of the importer; please report it with the file."
            )

    @property
    def rows_rejected(self) -> int:
        """Rows that a rule left out."""
        return sum(rejection.rows for rejection in self.rejections)


def total(accounts: Iterable[Account]) -> Account:
    """The account of several parts of a source."""
    listed = list(accounts)
    rejections: dict[str, Rejection] = {}
    flagged: dict[str, int] = {}
    for account in listed:
        for rejection in account.rejections:
            before = rejections.get(rejection.rule, rejection)
            rows = rejection.rows + (before.rows if before is not rejection else 0)
            rejections[rejection.rule] = Rejection(rule=rejection.rule, rows=rows, example=before.example)
        for flag in account.flagged:
            flagged[flag.rule] = flagged.get(flag.rule, 0) + flag.rows
    return Account(
        rows_in=sum(account.rows_in for account in listed),
        rows_kept=sum(account.rows_kept for account in listed),
        rejections=tuple(rejections.values()),
        flagged=tuple(Flagged(rule=rule, rows=rows) for rule, rows in sorted(flagged.items())),
    )
