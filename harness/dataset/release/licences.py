"""Licences: their names on the Hub, their addresses, and the texts that go with a release."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files

OWN = "CC-BY-4.0"  # of what the project and its contributors measured, and of the compilation
_HUB_UNKNOWN, _HUB_OTHER = "unknown", "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Licence:
    """One licence, by its SPDX identifier."""

    spdx: str
    hub: str  # as the Hub's cards name it
    url: str
    text: str | None = None  # name of its text in the package


_KNOWN = {
    licence.spdx: licence
    for licence in (
        Licence(
            spdx="CC-BY-4.0",
            hub="cc-by-4.0",
            url="https://creativecommons.org/licenses/by/4.0/",
            text="CC-BY-4.0.txt",
        ),
        Licence(
            spdx="Apache-2.0",
            hub="apache-2.0",
            url="https://www.apache.org/licenses/LICENSE-2.0",
            text="Apache-2.0.txt",
        ),
        Licence(spdx="MIT", hub="mit", url="https://opensource.org/license/mit", text="MIT.txt"),
        Licence(spdx="BSD-3-Clause", hub="bsd-3-clause", url="https://opensource.org/license/bsd-3-clause"),
        Licence(spdx="CC0-1.0", hub="cc0-1.0", url="https://creativecommons.org/publicdomain/zero/1.0/"),
        Licence(spdx="CC-BY-SA-4.0", hub="cc-by-sa-4.0", url="https://creativecommons.org/licenses/by-sa/4.0/"),
        Licence(spdx="CC-BY-NC-4.0", hub="cc-by-nc-4.0", url="https://creativecommons.org/licenses/by-nc/4.0/"),
        Licence(spdx="ODC-By-1.0", hub="odc-by", url="https://opendatacommons.org/licenses/by/1-0/"),
        Licence(spdx="ODbL-1.0", hub="odbl", url="https://opendatacommons.org/licenses/odbl/1-0/"),
    )
}


def hub_names(licences: Iterable[str | None]) -> tuple[str, ...]:
    """What the front matter lists: the compilation's own licence first, then those of sources.

    >>> hub_names(["Apache-2.0", None, "CC-BY-4.0", "My-Own-1.0"])
    ('cc-by-4.0', 'apache-2.0', 'unknown', 'other')
    """
    names = [_KNOWN[OWN].hub]
    for spdx in licences:
        known = _KNOWN.get(spdx or "")
        names.append(known.hub if known else _HUB_UNKNOWN if spdx is None else _HUB_OTHER)
    return tuple(dict.fromkeys(names))


def address(spdx: str) -> str | None:
    """Where a licence can be read; None where that is not known.

    >>> address("MIT"), address("My-Own-1.0")
    ('https://opensource.org/license/mit', None)
    """
    known = _KNOWN.get(spdx)
    return known.url if known else None


def text_of(spdx: str) -> str | None:
    """The full text of a licence; None where the package has none."""
    known = _KNOWN.get(spdx)
    if known is None or known.text is None:
        return None
    return files(__package__).joinpath("licences", known.text).read_text(encoding="utf-8")
