"""One reader per machine: the first rank of each reads its machine's meters, and rank 0 asks for what they say."""

import json
from collections.abc import Callable
from dataclasses import asdict

from harness.campaign.ranks import Command, Team, Verb
from harness.errors import MeterCause, MeterFailed
from harness.meters.base import Conditions, DeviceFacts, closed
from harness.meters.selection import MeterBank
from harness.records import Provenance

OpenBank = Callable[[], MeterBank]


class RemoteMeter:
    """A meter of another machine, read over the network: its reads take a round trip, which the bank times."""

    def __init__(self, team: Team, reader: int, number: int, described: dict[str, object]) -> None:
        self._team = team
        self._reader = reader
        self._number = number
        self._facts = DeviceFacts(**described["facts"])  # type: ignore[arg-type]
        self._closed = False
        self.name = str(described["name"])
        self.method = str(described["method"])
        self.provenance = Provenance(str(described["provenance"]))
        self.step_s = float(str(described["step_s"]))

    def read_j(self) -> float:
        """Joules since an arbitrary, fixed origin; raises ``MeterFailed``."""
        if self._closed:
            raise closed(self.name)
        answer = json.loads(self._ask(Verb.READ))
        if isinstance(answer, list):
            text, cause = answer
            raise MeterFailed(text, cause=None if cause is None else MeterCause(cause))
        return float(answer)

    def conditions(self, *, powers: bool = True) -> Conditions:
        """The device's state now."""
        return Conditions(**json.loads(self._ask(Verb.CONDITIONS, count=int(powers))))

    def facts(self) -> DeviceFacts:
        """What the device is."""
        return self._facts

    def close(self) -> None:
        """No more reads; the reader lets go of its meters at the end of the run."""
        self._closed = True

    def _ask(self, verb: Verb, *, count: int = 0) -> str:
        return self._team.ask(Command(verb=verb, number=self._number, count=count), self._reader)


class Reader:
    """What the first rank of a machine answers when rank 0 asks for its meters."""

    def __init__(self, team: Team, open_bank: OpenBank) -> None:
        self._team = team
        self._open_bank = open_bank
        self._bank: MeterBank | None = None

    def obey(self, command: Command) -> None:
        """Open the meters, or ask one of them."""
        if command.verb is Verb.METERS:
            self._bank = self._open_bank()
            self._team.answer(json.dumps([self._described(number) for number in range(len(self._bank.meters))]))
            return
        if self._bank is None:
            raise RuntimeError(f"{command.verb} comes after {Verb.METERS}")
        meter = self._bank.meters[command.number]
        if command.verb is Verb.CONDITIONS:
            self._team.answer(json.dumps(asdict(meter.conditions(powers=bool(command.count)))))
            return
        try:
            self._team.answer(json.dumps(meter.read_j()))
        except MeterFailed as error:
            self._team.answer(json.dumps([str(error), error.cause]))

    def close(self) -> None:
        """Let go of the meters."""
        if self._bank is not None:
            self._bank.close()

    def _described(self, number: int) -> dict[str, object]:
        if self._bank is None:
            raise RuntimeError("the bank is open by now")
        meter = self._bank.meters[number]
        return {
            "name": f"node {self._team.place.node}: {meter.name}",
            "method": meter.method,
            "provenance": meter.provenance.value,
            "step_s": meter.step_s,
            "facts": asdict(self._bank.facts()[number]),
        }


def bank_of_all_machines(team: Team, own: MeterBank) -> MeterBank:
    """The meters of rank 0's machine and then those of every other, behind one reader on rank 0's clock."""
    if not team.place.readers:
        return own
    meters = list(own.meters)
    for reader in team.place.readers:
        described = json.loads(team.ask(Command(verb=Verb.METERS), reader))
        meters += [RemoteMeter(team, reader, number, each) for number, each in enumerate(described)]
    links = own.facts()[0].topology
    return MeterBank(meters, own.clock, why=f"{own.why}; one reader per machine", links=links)
