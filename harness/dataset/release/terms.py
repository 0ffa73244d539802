"""What a release leaves out unless it is asked for by name, and which of a run's properties that is."""

from collections.abc import Iterable
from enum import StrEnum

from harness.errors import UsageError


class Inclusion(StrEnum):
    """A kind of run that is released only under its name: in the title, on the card and in the file names."""

    SIMULATED = "simulated"
    ESTIMATED = "estimated"
    UNLICENSED = "unlicensed"
    QUICK = "quick"
    FAILED = "failed"


MEANINGS = {
    Inclusion.SIMULATED: "energies of a virtual GPU; not a measurement of anything",
    Inclusion.ESTIMATED: "energies of a power model times time; no counter was read",
    Inclusion.UNLICENSED: "imported from a source that states no licence; do not redistribute",
    Inclusion.QUICK: "short windows and few trials: for trying out, not for comparing",
    Inclusion.FAILED: "runs that ended `oom`, `failed` or `skipped`; they have no energies",
}

# The words that apply to a row of `runs` joined with the licence of its source, as a list in the order above.
WORDS_SQL = f"""
[word FOR word IN [
    CASE WHEN provenance = '{Inclusion.SIMULATED}' THEN '{Inclusion.SIMULATED}' END,
    CASE WHEN provenance = '{Inclusion.ESTIMATED}' THEN '{Inclusion.ESTIMATED}' END,
    CASE WHEN provenance = 'imported' AND licence IS NULL THEN '{Inclusion.UNLICENSED}' END,
    CASE WHEN quality = 'quick' THEN '{Inclusion.QUICK}' END,
    CASE WHEN status <> 'ok' THEN '{Inclusion.FAILED}' END
] IF word IS NOT NULL]
"""


def read_inclusions(text: str) -> frozenset[Inclusion]:
    """Read ``quick,estimated``; raises ``UsageError`` for a word that is none.

    >>> sorted(read_inclusions("quick, estimated"))
    [<Inclusion.ESTIMATED: 'estimated'>, <Inclusion.QUICK: 'quick'>]
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    unknown = [word for word in words if word not in set(Inclusion)]
    if unknown or not words:
        raise UsageError(
            f"--include {text[:80]!r} is not understood{f': {unknown[0][:40]!r} is no such word' if unknown else ''}.\n"
            f"Write one or more of {', '.join(Inclusion)}, with commas between."
        )
    return frozenset(Inclusion(word) for word in words)


def in_order(inclusions: Iterable[Inclusion]) -> tuple[Inclusion, ...]:
    """In the one order in which they are written everywhere: the farthest from a measurement first."""
    found = frozenset(inclusions)
    return tuple(word for word in Inclusion if word in found)


def suffix(inclusions: Iterable[Inclusion]) -> str:
    """What these words add to a file name.

    >>> suffix({Inclusion.QUICK, Inclusion.ESTIMATED}), suffix(())
    ('-estimated-quick', '')
    """
    return "".join(f"-{word}" for word in in_order(inclusions))


def phrase(inclusions: Iterable[Inclusion]) -> str:
    """What these words add to a title.

    >>> phrase({Inclusion.QUICK, Inclusion.ESTIMATED, Inclusion.FAILED})
    'with estimated, quick and failed runs'
    """
    *most, last = in_order(inclusions)
    return f"with {', '.join(most)} and {last} runs" if most else f"with {last} runs"
