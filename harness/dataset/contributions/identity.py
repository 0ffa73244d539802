"""Who the machine and its user are, so that neither gets into what is published."""

import getpass
import os
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

# Names that many machines share and that name nobody; they are words of other kinds in records, too.
_NOBODY = frozenset(
    {
        *("root", "user", "users", "home", "admin", "ubuntu", "debian", "nobody", "localhost", "local", "localdomain"),
        *("nvidia", "intel", "amd", "arm", "jetson", "gpu", "cuda", "cpu", "model"),
    }
)
_SHORTEST = 3  # characters; a shorter name is part of too many words to be found safely


class Kind(StrEnum):
    """What was removed."""

    USER = "user"
    HOST = "host"
    PATH = "path"
    EMAIL = "email"
    ADDRESS = "address"
    DEVICE = "device id"
    SERIAL = "serial number"
    SECRET = "secret"  # noqa: S105  the word itself
    PROCESS = "process"
    HIDDEN = "hidden"  # what the contributor asked to hide


# What follows a word and belongs to it.
_MORE = {Kind.HOST: r"(?:\.[A-Za-z0-9-]+)*", Kind.PATH: r"(?:[/\\][^\s'\"<>|;,()\[\]{}`]*)?"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateWord:
    """A word that must not be published, wherever it stands."""

    kind: Kind
    word: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Words that would tell whose machine a measurement was made on. Longer ones come first."""

    words: tuple[PrivateWord, ...]

    @classmethod
    def of(
        cls, *, users: Iterable[str], hosts: Iterable[str], homes: Iterable[str], hidden: Iterable[str]
    ) -> "Identity":
        """Words that are long enough to be found and name somebody; what is to be hidden is hidden whatever it is."""
        found = [
            *(PrivateWord(kind=Kind.HIDDEN, word=word) for word in hidden if word.strip()),
            *(PrivateWord(kind=Kind.PATH, word=home) for home in homes if len(Path(home).parts) > 1),
            *(PrivateWord(kind=Kind.USER, word=user) for user in users if _tells(user)),
            *(PrivateWord(kind=Kind.HOST, word=host) for host in hosts if _tells(host)),
        ]
        unique = {each.word.lower(): each for each in reversed(found)}
        return cls(words=tuple(sorted(unique.values(), key=lambda each: (-len(each.word), each.word))))


def this_machine(hidden: Iterable[str] = ()) -> Identity:
    """The names of this machine, its user and the user's home; ``hidden`` is what else is to be removed."""
    names = {platform.node(), os.environ.get("HOSTNAME", ""), os.environ.get("COMPUTERNAME", "")}
    hosts = names | {name.partition(".")[0] for name in names}
    users = {os.environ.get(name, "") for name in ("USER", "LOGNAME", "USERNAME", "SUDO_USER")} | {_login()}
    homes = {str(Path.home()), os.environ.get("HOME", "")}
    return Identity.of(users=users, hosts=hosts, homes=homes, hidden=hidden)


def word_pattern(private: PrivateWord) -> "re.Pattern[str]":
    """Where a word stands by itself: between letters and digits it is part of another word.

    To a host belongs its domain, to a home what is in it.
    """
    more = _MORE.get(private.kind, "")
    return re.compile(rf"(?<![A-Za-z0-9]){re.escape(private.word)}{more}(?![A-Za-z0-9])", re.IGNORECASE)


def _tells(name: str) -> bool:
    return len(name) >= _SHORTEST and name.lower() not in _NOBODY and not name.isdigit()


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container whose user has no name
        return ""
