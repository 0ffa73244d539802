"""What a release is called, and what stands between its title and its first number."""

from harness.dataset.release.fact_records import ReleaseFacts
from harness.dataset.release.markdown import counted
from harness.dataset.release.record import ReleaseRecord
from harness.dataset.release.terms import MEANINGS, Inclusion, phrase, suffix

NAME = "joulegraph-dataset"
_TITLE = "Energy of LLM inference, per phase and per kernel"


def title(facts: ReleaseFacts) -> str:
    """The title, with the words that apply to some of its runs."""
    return f"{_TITLE}, {phrase(facts.included)}" if facts.included else _TITLE


def folder_name(version: str, included: tuple[Inclusion, ...]) -> str:
    """What the folder of a release is called unless its maker says otherwise.

    >>> folder_name("1.0.0", (Inclusion.QUICK,))
    'joulegraph-dataset-1.0.0-quick'
    """
    return f"{NAME}-{version}{suffix(included)}"


def summary(facts: ReleaseFacts) -> str:
    """The release in a sentence or two of plain text."""
    rows = {size.table.title: size.rows for size in facts.tables}
    totals = facts.totals
    parts = [
        f"{counted(totals.runs, 'run')} of {counted(totals.models, 'language model')} on "
        f"{counted(totals.gpus, 'device')}"
    ]
    parts += [counted(rows[name], name.removesuffix("s")) for name in ("phases", "kernels") if rows[name]]
    parts += [f"{rows['kernel_energies']:,} energies of kernels"] if rows["kernel_energies"] else []
    text = f"{'; '.join(parts)}. Every number says how it came about."
    return f"{text} {_words_text(facts)}".strip()


def warnings(facts: ReleaseFacts) -> tuple[str, ...]:
    """One line per word that applies, for the head of the card."""
    return tuple(f"**{count.word}**: {counted(count.runs, 'run')}; {MEANINGS[count.word]}." for count in facts.words)


def citation_text(record: ReleaseRecord, facts: ReleaseFacts) -> str:
    """BibTeX of the release."""
    address = f",\n  url = {{{record.url}}}" if record.url else ""
    return (
        f"@misc{{{NAME}-{record.version},\n"
        f"  title = {{{{{title(facts)}}}}},\n"
        "  author = {{The Joulegraph developers and contributors}},\n"
        f"  year = {{{record.date[:4]}}},\n"
        f"  version = {{{record.version}}}{address}\n}}"
    )


def _words_text(facts: ReleaseFacts) -> str:
    if not facts.words:
        return ""
    return f"It comes {phrase(facts.included)}, each named in its row and in the name of its file."
