"""The command line of a campaign, built from the fields of the plan.

Every field of ``Plan`` is a flag; ``--plan FILE`` reads a plan, and flags override what it says.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import __version__
from harness.arguments import Parser
from harness.campaign.fields import Field, RequestSpec, closest
from harness.campaign.plan import Plan, implied_sampling, plan_fields
from harness.campaign.plan_file import read_table
from harness.campaign.reference_pack import pack_table
from harness.errors import UsageError

_GROUPS = {
    "model": "what is measured",
    "deployment": "what it runs on",
    "requests": "which requests",
    "protocol": "how it is measured",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """What one command line asks for. Only the plan is part of the campaign's identity."""

    plan: Plan
    out: Path | None  # the folder of the campaign; None: ``plan.default_folder``
    dry_run: bool
    node_rank: int = 0  # which of the plan's machines this one is; 0 drives the campaign
    rendezvous: str | None = None  # HOST:PORT of machine 0, where the machines of a run meet
    predictor_checkpoint: Path | None = None  # of what chooses the requests of focused sampling; None: the shipped one


def parser(prog: str = "python -m harness.run") -> argparse.ArgumentParser:
    """The parser behind ``parse``."""
    root = Parser(
        prog=prog,
        description="Measure the energy of LLM inference: a resumable campaign, a dataset folder, one report.",
        epilog="Run the same command again to go on with a campaign that was interrupted.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    root.add_argument("--version", action="version", version=f"joulegraph {__version__}")
    command = root.add_argument_group("the campaign")
    command.add_argument("--plan", metavar="FILE", help="TOML file with the plan; flags override it")
    command.add_argument(
        "--reference-pack",
        action="store_true",
        help="the fixed runs that every contributor makes, so that labs can be compared; about ten minutes",
    )
    command.add_argument("--out", metavar="DIR", help="folder of the campaign (default: campaigns/MODEL-PLANHASH)")
    command.add_argument("--dry-run", action="store_true", help="print every run with its estimates, and run nothing")
    command.add_argument("--node-rank", metavar="N", help="with --nodes: which machine this is; 0 drives the campaign")
    command.add_argument("--rendezvous", metavar="HOST:PORT", help="with --nodes: where machine 0 can be reached")
    command.add_argument(
        "--predictor-checkpoint",
        metavar="FILE",
        help="with --sampling focused: the predictor whose doubts are followed (default: the one that ships)",
    )
    groups = {name: root.add_argument_group(title) for name, title in _GROUPS.items()}
    for field in plan_fields():
        _add_flag(groups[field.option.group], field)
    return root


def parse(argv: Sequence[str], prog: str = "python -m harness.run") -> Invocation:
    """Read a command line (without the program's name); raises ``UsageError``. ``--help`` exits."""
    root = parser(prog)
    given, unknown = root.parse_known_args(argv)
    if unknown:
        raise UsageError(_unknown_text(root, unknown))
    values = vars(given)
    flags = {field.name: _from_text(field, values[field.name]) for field in plan_fields() if field.name in values}
    plan = Plan.from_table(_overridden(_table(values, flags), flags))
    dry_run = "dry_run" in values
    return Invocation(
        plan=plan,
        out=_folder(values.get("out")),
        dry_run=dry_run,
        node_rank=_node_rank(values.get("node_rank", "0"), plan),
        rendezvous=_rendezvous(values.get("rendezvous"), plan, needed=not dry_run),
        predictor_checkpoint=_checkpoint(values.get("predictor_checkpoint"), plan),
    )


def _table(values: Mapping[str, object], flags: Mapping[str, object]) -> dict[str, object]:
    """The plan before flags change it."""
    if "reference_pack" not in values:
        return read_table(Path(str(values["plan"]))) if "plan" in values else {}
    for other in ("plan", "node_rank", "rendezvous"):
        if other in values:
            raise UsageError(
                f"--reference-pack is a plan of its own, on one machine; --{other.replace('_', '-')} does not go "
                "with it.\nLeave out one of the two."
            )
    return pack_table(flags, plan_fields())


def _add_flag(group: "argparse._ArgumentGroup", field: Field) -> None:
    text = (field.option.text + _default_text(field)).replace("%", "%%")
    if field.kind is bool:
        group.add_argument(field.flag, dest=field.name, action=argparse.BooleanOptionalAction, help=text)
    elif field.item_kind is not None:
        group.add_argument(
            field.flag, dest=field.name, nargs="+", action="extend", metavar=field.option.metavar, help=text
        )
    else:
        metavar = field.option.metavar or "{" + ",".join(field.choices) + "}"
        group.add_argument(field.flag, dest=field.name, metavar=metavar, help=text)


def _default_text(field: Field) -> str:
    if field.default is None or field.default == () or field.kind is bool:
        return "" if field.default is not True else " (default: on)"
    default = field.default
    return f" (default: {' '.join(map(str, default)) if isinstance(default, tuple) else default})"


def _from_text(field: Field, value: object) -> object:
    """Turn the text of a flag into what a plan file would hold; lists of numbers may be written 1,2,4."""
    if field.kind is int:
        return _whole(field, str(value))
    if field.item_kind is not int and field.item_kind is not RequestSpec:
        return value
    words = [word for text in (value if isinstance(value, list) else []) for word in text.split(",") if word.strip()]
    if not words:
        raise field.error("is empty", "Give at least one, or leave the flag out.")
    return [_whole(field, word) for word in words] if field.item_kind is int else words


def _whole(field: Field, text: str) -> int:
    if re.fullmatch(r"\s*[+-]?[0-9]{1,20}\s*", text):
        return int(text)
    least, most = field.option.at_least, field.option.at_most
    raise field.error(f"{text[:60]!r} is not a whole number", f"Write a number from {least} to {most}.")


def _overridden(table: dict[str, object], flags: dict[str, object]) -> dict[str, object]:
    """Flags win. Flags that call for another sampling than the file also drop the file's sizes for the old one."""
    implied = implied_sampling(flags)
    if "sampling" not in flags and implied != "trace":
        flags = flags | {"sampling": implied}
    if "sampling" in flags and flags["sampling"] != table.get("sampling", implied_sampling(table)):
        unused = {f.name for f in plan_fields() if f.option.used_by and flags["sampling"] not in f.option.used_by}
        table = {key: value for key, value in table.items() if key not in unused}
    return table | flags


def _folder(text: str | None) -> Path | None:
    if text is None:
        return None
    if not text.strip() or "\0" in text:
        raise UsageError("--out needs the name of a folder.\nLeave it out for campaigns/MODEL-PLANHASH.")
    return Path(text)


def _checkpoint(text: str | None, plan: Plan) -> Path | None:
    if text is None:
        return None
    if plan.sampling != "focused":
        raise UsageError(
            f"--predictor-checkpoint does nothing when requests come from sampling = {plan.sampling}.\n"
            "Leave it out, or ask for --sampling focused."
        )
    try:
        there = Path(text).is_file()
    except ValueError:  # a null byte
        there = False
    if not there:
        raise UsageError(f"--predictor-checkpoint {text[:200]!r} is no file.\nName what `predictor.train --out` wrote.")
    return Path(text)


def _node_rank(text: str, plan: Plan) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) >= plan.nodes:
        raise UsageError(
            f"--node-rank {text[:60]!r} is none of the plan's {plan.nodes} machine(s).\n"
            f"Write a number from 0 to {plan.nodes - 1}; --nodes says how many there are."
        )
    return int(text)


def _rendezvous(text: str | None, plan: Plan, *, needed: bool) -> str | None:
    if text is None and (plan.nodes == 1 or not needed):
        return None
    match = re.fullmatch(r"([^:\s]+|\[[0-9a-fA-F:.]+\]):([0-9]{1,5})", text or "")
    if match is None or not 0 < int(match[2]) < 65_536:
        given = "is missing" if text is None else f"{text[:60]!r} is no HOST:PORT"
        raise UsageError(
            f"--rendezvous {given}.\nName machine 0 and a free port of it, the same on all machines: node0:29400."
        )
    if plan.nodes == 1:
        raise UsageError("--rendezvous is for runs on several machines.\nGive --nodes too, or leave it out.")
    return text


def _unknown_text(root: argparse.ArgumentParser, unknown: Sequence[str]) -> str:
    known = [flag for action in root._actions for flag in action.option_strings if flag.startswith("--")]
    flags = [word.split("=")[0] for word in unknown if word.startswith("-")]
    if not flags:
        return f"{unknown[0]!r} belongs to no flag.\nSee {root.prog} --help."
    return f"There is no flag {flags[0]}.\n{closest(flags[0], known)}"
