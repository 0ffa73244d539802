"""The fixed words of records: how a number came about, how a run ended, what a reading is of."""

from enum import StrEnum


class Provenance(StrEnum):
    """How a number came about; never mixed without being asked by name."""

    MEASURED = "measured"  # a hardware energy counter
    ESTIMATED = "estimated"  # a power model times time
    SIMULATED = "simulated"  # the virtual GPU
    IMPORTED = "imported"  # somebody else's measurement, with source and licence


class Status(StrEnum):
    """How a run ended."""

    OK = "ok"
    OOM = "oom"
    FAILED = "failed"
    SKIPPED = "skipped"


class Quality(StrEnum):
    """Which protocol the windows followed."""

    STANDARD = "standard"
    QUICK = "quick"


class Workload(StrEnum):
    """What was run."""

    BATCH = "batch"  # one batch, from its prefill to its last token
    SERVER = "server"  # an inference server at steady state, requests coming and going
    KERNELS = "kernels"  # kernels alone, outside any model


class Weights(StrEnum):
    """What the parameters of the model under test were."""

    PRETRAINED = "pretrained"
    RANDOM = "random"
    DEQUANTISED = "dequantised"  # read from a quantised file, computed with in full precision


class EnergyMethod(StrEnum):
    """How the energy of one kernel was inferred; it is never read."""

    APPORTIONED = "apportioned"
    REPLAY = "replay"
    REGRESSED = "regressed"
    IMPORTED = "imported"


class Part(StrEnum):
    """What a raw reading is a reading of."""

    PREFILL = "prefill"
    DECODE = "decode"
    RUN = "run"
    IDLE = "idle"
    REPLAY = "replay"  # one kernel looped, or all small ones of a phase in turn
    MIXTURE = "mixture"  # kernels of a phase in turn, each a random number of times
    WAITING = "waiting"  # a collective for which one rank is always late
