"""The plan: one frozen dataclass = one TOML file = the command line.

The full plan is stored with each run, and its hash is the campaign's identity, so a folder can tell whether
it is asked to go on with the same work.
"""

import hashlib
import json
import re
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from harness.campaign.fields import Field, Option, RequestSpec, closest, read_value, shown
from harness.campaign.plan_checks import check_combinations, check_focused, check_sampling, check_spread
from harness.campaign.plan_file import read_table, toml_request, toml_value
from harness.errors import UsageError
from harness.records import Quality

MAX_REQUESTS = 100_000
MAX_TOKENS = 10_000_000

_MODEL = "model"
_DEPLOYMENT = "deployment"
_REQUESTS = "requests"
_PROTOCOL = "protocol"
VIRTUAL = "virtual:"  # before the name of a simulated GPU
MOST_VIRTUAL = 8  # of them in a machine
_DEVICES = ("auto", "cpu", "cuda")
_LATER = {
    "parallelism": "tensor",
    "nodes": 1,
    "collective_timeout_s": 600.0,
    "kernel_energy": "auto",
    "calibration_file": None,
    "held_out_samples": 16,
    "held_out": [],
    "round_size": 2,
}  # without them a plan keeps its old id


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The runs wanted. Every combination of model, GPU count and request is one run.

    Construction checks each value and their combination and raises ``UsageError``.
    """

    models: Annotated[
        tuple[str, ...],
        Option(
            text="models under test: Hub ids, local folders or config.json files; none: the default for the device",
            group=_MODEL,
            metavar="MODEL",
        ),
    ] = ()
    revision: Annotated[
        str | None, Option(text="branch, tag or commit of the model's repository", group=_MODEL, metavar="REVISION")
    ] = None
    random_weights: Annotated[
        bool, Option(text="build the model from its config with random weights instead of loading it", group=_MODEL)
    ] = False
    trust_remote_code: Annotated[
        bool, Option(text="let the model's repository run its own Python code here", group=_MODEL)
    ] = False
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Option(
            text="dtype of parameters and activations; auto: bfloat16 on a GPU (else float16), float32 on a CPU",
            group=_MODEL,
        ),
    ] = "auto"
    attention: Annotated[
        Literal["auto", "sdpa", "eager", "flash_attention_2"],
        Option(text="attention implementation; auto: sdpa where the architecture has it, else eager", group=_MODEL),
    ] = "auto"
    kv_cache: Annotated[
        bool, Option(text="keep keys and values; without it every token recomputes the whole context", group=_MODEL)
    ] = True
    device: Annotated[
        str,
        Option(
            text="what computes: cuda, cpu, or a simulated GPU as virtual:NAME or virtual:FILE.toml; auto: the GPUs "
            "found, else the CPU",
            group=_DEPLOYMENT,
            metavar="DEVICE",
        ),
    ] = "auto"
    gpus: Annotated[
        tuple[int, ...],
        Option(
            text="GPU counts; each run spans that many GPUs, or on the CPU that many ranks; none: one",
            group=_DEPLOYMENT,
            metavar="N",
            at_most=1024,
        ),
    ] = ()
    parallelism: Annotated[
        Literal["tensor", "layers"],
        Option(
            text="how several GPUs share a model. tensor: each has a share of every layer; layers: each has whole "
            "layers, and they take turns",
            group=_DEPLOYMENT,
        ),
    ] = "tensor"
    nodes: Annotated[
        int,
        Option(text="machines that share each run, evenly", group=_DEPLOYMENT, metavar="N", at_most=1024),
    ] = 1
    collective_timeout_s: Annotated[
        float,
        Option(
            text="a rank that keeps the others waiting for so long ends the run",
            group=_DEPLOYMENT,
            flag="--collective-timeout",
            metavar="TIME",
            at_most=86_400,
        ),
    ] = 600.0
    cpu_threads: Annotated[
        int,
        Option(
            text="threads on the CPU, divided among the ranks of a machine; 0: torch's default",
            group=_DEPLOYMENT,
            metavar="N",
            at_least=0,
            at_most=4096,
        ),
    ] = 0
    calibration_file: Annotated[
        str | None,
        Option(
            text="what `python -m harness.calibrate --out FILE` wrote on this machine",
            group=_PROTOCOL,
            flag="--calibration",
            metavar="FILE",
        ),
    ] = None
    hardware_file: Annotated[
        str | None,
        Option(
            text="TOML file with devices the hardware table lacks", group=_DEPLOYMENT, flag="--hardware", metavar="FILE"
        ),
    ] = None
    sampling: Annotated[
        Literal["trace", "grid", "list", "focused"],
        Option(
            text="requests sampled from a trace of real ones, every combination of the given sizes, a list, or those "
            "of a trace that a predictor is least certain of",
            group=_REQUESTS,
        ),
    ] = "trace"
    samples: Annotated[
        int,
        Option(
            text="requests to sample", group=_REQUESTS, metavar="N", at_most=MAX_REQUESTS, used_by=("trace", "focused")
        ),
    ] = 8
    trace: Annotated[
        str,
        Option(
            text="azure-2023, azure-2023-conversation, azure-2023-code, or a CSV file with two columns of token counts",
            group=_REQUESTS,
            metavar="TRACE",
            used_by=("trace", "focused"),
        ),
    ] = "azure-2023"
    batch_sizes: Annotated[
        tuple[int, ...],
        Option(
            text="sequences computed together",
            group=_REQUESTS,
            metavar="N",
            at_most=65_536,
            used_by=("trace", "grid", "focused"),
        ),
    ] = (1, 2, 4, 8)
    prompt_tokens: Annotated[
        tuple[int, ...],
        Option(text="prompt lengths of a grid", group=_REQUESTS, metavar="N", at_most=MAX_TOKENS, used_by=("grid",)),
    ] = ()
    output_tokens: Annotated[
        tuple[int, ...],
        Option(text="output lengths of a grid", group=_REQUESTS, metavar="N", at_most=MAX_TOKENS, used_by=("grid",)),
    ] = ()
    requests: Annotated[
        tuple[RequestSpec, ...],
        Option(
            text="the requests themselves, each batch x prompt x output",
            group=_REQUESTS,
            metavar="BxPxO",
            at_most=MAX_TOKENS,
            used_by=("list",),
        ),
    ] = ()
    held_out_samples: Annotated[
        int,
        Option(
            text="requests sampled and measured first, which the choice of the others never sees",
            group=_REQUESTS,
            metavar="N",
            at_most=MAX_REQUESTS,
            used_by=("focused",),
        ),
    ] = 16
    held_out: Annotated[
        tuple[RequestSpec, ...],
        Option(
            text="those requests themselves; none: they are sampled",
            group=_REQUESTS,
            metavar="BxPxO",
            at_most=MAX_TOKENS,
            used_by=("focused",),
        ),
    ] = ()
    round_size: Annotated[
        int,
        Option(
            text="requests chosen at once, before what they gave is learned",
            group=_REQUESTS,
            metavar="N",
            at_most=1024,
            used_by=("focused",),
        ),
    ] = 2
    seed: Annotated[
        int,
        Option(text="seed of everything that is random", group=_REQUESTS, metavar="N", at_least=0, at_most=2**32 - 1),
    ] = 0
    quality: Annotated[
        Quality, Option(text="quick: short windows and few trials, for trying out; never released", group=_PROTOCOL)
    ] = Quality.STANDARD
    time_budget_s: Annotated[
        float | None,
        Option(
            text="shorten the longest requests until the campaign fits, e.g. 5min",
            group=_PROTOCOL,
            flag="--time-budget",
            metavar="TIME",
        ),
    ] = None
    trace_kernels: Annotated[bool, Option(text="trace kernels in a pass of its own", group=_PROTOCOL)] = True
    kernel_energy: Annotated[
        Literal["auto", "apportioned", "replay", "regressed", "all"],
        Option(
            text="energy of kernels. apportioned: their shares of their phase; replay: also looped alone; regressed: "
            "also over mixtures of them; auto: replay on virtual GPUs, else apportioned",
            group=_PROTOCOL,
        ),
    ] = "auto"

    def __post_init__(self) -> None:
        for field in plan_fields():
            object.__setattr__(self, field.name, read_value(field, getattr(self, field.name)))
        check_sampling(self, plan_fields(), most=MAX_REQUESTS)
        check_focused(self)
        _check_deployment(self)

    @classmethod
    def from_table(cls, table: Mapping[str, object]) -> "Plan":
        """Build a plan from keys and values; what is absent keeps its default; raises ``UsageError``.

        Without ``sampling``, ``requests`` imply a list, and ``prompt_tokens`` or ``output_tokens`` a grid.
        """
        known = {field.name for field in plan_fields()}
        for key in table:
            if key not in known:
                raise UsageError(f"A plan has no key {shown(key)}.\n{closest(key, known)}")
        implied: dict[str, object] = {"sampling": implied_sampling(table)}
        return cls(**typing.cast("dict[str, Any]", implied | dict(table)))

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """Read a plan from a TOML file; raises ``UsageError`` for anything that is no valid plan."""
        return cls.from_table(read_table(path))

    def to_toml(self) -> str:
        """Write the plan as TOML that ``read`` turns into the same plan."""
        lines, tables = [], []
        for field in plan_fields():
            value = getattr(self, field.name)
            if field.item_kind is RequestSpec:
                tables += [f"\n[[{field.name}]]\n{toml_request(request)}" for request in value]
            elif value is not None:
                lines.append(f"# {field.option.text}\n{field.name} = {toml_value(value)}")
        return "\n".join(lines) + "\n" + "".join(tables)

    @property
    def configuration(self) -> str:
        """Every field as canonical JSON: sorted keys, no spaces."""
        values = {field.name: getattr(self, field.name) for field in plan_fields()}
        for name in ("requests", "held_out"):
            values[name] = [str(request) for request in values[name]]
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    @property
    def campaign_id(self) -> str:
        """Content hash of the plan, 16 hexadecimal digits: the same plan has the same id everywhere."""
        values = json.loads(self.configuration)
        told = {name: value for name, value in values.items() if name not in _LATER or value != _LATER[name]}
        text = json.dumps(told, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def default_folder(self) -> Path:
        """Where the campaign goes unless told otherwise: the same plan finds its own folder again."""
        first = Path(self.models[0].removesuffix("/config.json")).name if self.models else "default-model"
        slug = re.sub(r"[^a-z0-9]+", "-", first.lower()).strip("-")[:40] or "model"
        more = f"-and-{len(self.models) - 1}-more" if len(self.models) > 1 else ""
        return Path("campaigns") / f"{slug}{more}-{self.campaign_id[:8]}"


@cache
def plan_fields() -> tuple[Field, ...]:
    """Every field of a plan, in order."""
    hints = typing.get_type_hints(Plan, include_extras=True)
    found = []
    for field in fields(Plan):
        kind, option = typing.get_args(hints[field.name])
        default = None if field.default is MISSING else field.default
        found.append(Field(name=field.name, kind=kind, option=option, default=default))
    return tuple(found)


def implied_sampling(table: Mapping[str, object]) -> str:
    """The sampling that the given keys can only mean.

    >>> implied_sampling({"requests": ["1x8x8"]}), implied_sampling({})
    ('list', 'trace')
    """
    if "requests" in table:
        return "list"
    return "grid" if "prompt_tokens" in table or "output_tokens" in table else "trace"


def _check_deployment(plan: Plan) -> None:
    if plan.device not in _DEVICES and not plan.device.startswith(VIRTUAL):
        raise UsageError(
            f"device (--device): {shown(plan.device)} is not allowed.\n"
            f"{closest(plan.device, _DEVICES)} Or {VIRTUAL}NAME for a simulated GPU, such as {VIRTUAL}h100-sxm."
        )
    check_spread(plan)
    check_combinations(plan)
