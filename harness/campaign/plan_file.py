"""Plans as TOML: reading tables with a size limit, writing values back."""

import json
import tomllib
from dataclasses import fields
from pathlib import Path

from harness.campaign.fields import RequestSpec, shown
from harness.errors import UsageError

MAX_PLAN_BYTES = 1_000_000


def read_table(path: Path) -> dict[str, object]:
    """Read the keys and values of a TOML file of at most 1 MB; raises ``UsageError``."""
    try:
        if path.exists() and not path.is_file():
            raise OSError(0, "it is no file")  # a pipe would be waited for for ever
        with path.open("rb") as file:
            content = file.read(MAX_PLAN_BYTES + 1)
    except (OSError, ValueError) as problem:  # ValueError: a path with a null byte
        reason = getattr(problem, "strerror", None) or problem
        raise UsageError(f"The plan {shown(str(path))} cannot be read: {reason}.\nName a TOML file.") from problem
    if len(content) > MAX_PLAN_BYTES:
        raise UsageError(
            f"{path} is larger than {MAX_PLAN_BYTES:,} bytes, so it is no plan.\nName the plan's TOML file."
        )
    try:
        return tomllib.loads(content.decode())
    except RecursionError as problem:
        raise UsageError(
            f"{path} is nested too deeply to be a plan.\nA plan has keys, lists and [[requests]]."
        ) from problem
    except ValueError as problem:  # not UTF-8, not TOML, or a number that is too long
        raise UsageError(f"{path} is not a valid TOML file: {problem}.\nCorrect it there.") from problem


def toml_value(value: object) -> str:
    """Write a value of a plan as TOML."""
    if isinstance(value, tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if isinstance(value, str):
        return json.dumps(str(value), ensure_ascii=False)  # a JSON string without control characters is a TOML string
    return str(value).lower() if isinstance(value, bool) else repr(value)


def toml_request(request: RequestSpec) -> str:
    """Write a request as the lines of a table."""
    return "".join(f"{name.name} = {getattr(request, name.name)}\n" for name in fields(request))
