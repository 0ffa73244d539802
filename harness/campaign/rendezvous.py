"""Where the agents of one run meet: on one machine by themselves, on several at addresses that machine 0 gives out."""

import json
import socket
from dataclasses import asdict, dataclass
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """One run on several machines, as the agent of one of them is told."""

    node: int
    nodes: int
    endpoint: str  # HOST:PORT of machine 0, where the ranks meet
    board: str  # HOST:PORT of machine 0, where they report why they end

    def to_json(self) -> str:
        """The meeting on one line."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what ``to_json`` wrote."""
        return cls(**json.loads(text))


def split_address(address: str) -> tuple[str, int]:
    """Host and port.

    >>> split_address("node0:29400"), split_address("[::1]:29400")
    (('node0', 29400), ('::1', 29400))
    """
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket(socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET) as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
