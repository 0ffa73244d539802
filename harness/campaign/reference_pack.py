"""``--reference-pack``: the plan of the reference pack for this machine, and which flags may go with it."""

from collections.abc import Mapping

from harness.campaign.fields import Field
from harness.dataset.contributions.pack import reference_pack
from harness.errors import UsageError

# What may be said beside it; anything else would make other runs, which could not be compared with those of other labs.
_FREE = frozenset(
    {"device", "gpus", "quality", "calibration_file", "hardware_file", "kernel_energy", "collective_timeout_s"}
)


def pack_table(flags: Mapping[str, object], fields: tuple[Field, ...]) -> dict[str, object]:
    """Keys and values of the pack's plan, as a plan file would give them; raises ``UsageError`` for other flags.

    ``flags`` are those given, by field. On ``--device auto`` the driver is asked whether there are GPUs.
    """
    fixed = [field.flag for field in fields if field.name in flags and field.name not in _FREE]
    if fixed:
        free = ", ".join(field.flag for field in fields if field.name in _FREE)
        raise UsageError(
            f"{fixed[0]} would change the reference pack, which is the same for everybody.\n"
            f"Leave it out; with --reference-pack go --out, --dry-run, {free}. Or make a plan of your own."
        )
    pack = reference_pack()
    on_cpu = _on_cpu(flags)
    counts = flags.get("gpus")
    if isinstance(counts, list) and not on_cpu and pack.on_gpu.n_gpus not in counts:
        raise UsageError(
            f"Labs are compared on one GPU, and --gpus {' '.join(map(str, counts))} leaves that out.\n"
            f"Add 1, or leave --gpus out."
        )
    return dict((pack.on_cpu if on_cpu else pack.on_gpu).plan)


def _on_cpu(flags: Mapping[str, object]) -> bool:
    device = flags.get("device", "auto")
    if device != "auto":
        return device == "cpu"
    if "gpus" in flags:  # as `find_site` reads it: GPUs are wanted
        return False
    from harness.meters.selection import find_gpus

    return not find_gpus().gpus
