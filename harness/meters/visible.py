"""Which GPUs CUDA will use, from ``CUDA_VISIBLE_DEVICES``, without importing torch.

The rules are CUDA's own (CUDA C++ Programming Guide, "CUDA Environment Variables"), as torch reads them:
unset is all GPUs, an empty text is none, the list ends at the first entry that names no GPU, an entry given twice
empties the list, a UUID may be cut short as long as it is unique.
"""

import re
from collections.abc import Mapping, Sequence

VARIABLE = "CUDA_VISIBLE_DEVICES"
ORDER_VARIABLE = "CUDA_DEVICE_ORDER"
PCI_ORDER = "PCI_BUS_ID"


def visible_indices(value: str | None, uuids: Sequence[str]) -> tuple[int, ...]:
    """The GPUs that a value of ``CUDA_VISIBLE_DEVICES`` leaves visible, in its order.

    ``uuids`` are the machine's GPUs in NVML's order (by PCI bus); the answer is positions in it. Values that name
    slices of a GPU (``MIG-…``) need NVML: see ``visible_slices``.

    >>> visible_indices("1,0", ("GPU-aa", "GPU-bb")), visible_indices("GPU-b", ("GPU-aa", "GPU-bb"))
    ((1, 0), (1,))
    """
    if value is None:
        return tuple(range(len(uuids)))
    chosen: list[int] = []
    for entry in value.split(","):
        index = _index(entry.strip(), uuids)
        if index in chosen:
            return ()
        if index is None:
            break
        chosen.append(index)
    return tuple(chosen)


def visible_slices(value: str | None) -> tuple[str, ...]:
    """The MIG slices a value names, in its order; empty if it names whole GPUs.

    >>> visible_slices("MIG-1f,MIG-2f,0"), visible_slices("0,1")
    (('MIG-1f', 'MIG-2f'), ())
    """
    chosen: list[str] = []
    for entry in (value or "").split(","):
        if entry.strip() in chosen:
            return ()
        if not entry.strip().startswith("MIG-"):
            break
        chosen.append(entry.strip())
    return tuple(chosen)


def order_is_certain(environ: Mapping[str, str], names: Sequence[str]) -> bool:
    """Whether CUDA numbers the GPUs as NVML does.

    CUDA numbers by speed unless told to number by PCI bus, which differs only where the models differ; UUIDs and
    slices mean the same everywhere.
    """
    by_name = environ.get(VARIABLE, "").startswith(("GPU-", "MIG-"))
    return len(set(names)) <= 1 or by_name or environ.get(ORDER_VARIABLE) == PCI_ORDER


def _index(entry: str, uuids: Sequence[str]) -> int | None:
    if entry.startswith("GPU-"):
        matches = [i for i, uuid in enumerate(uuids) if uuid.startswith(entry)]
        return matches[0] if len(matches) == 1 else None
    number = re.match(r"\+?\d+", entry)  # CUDA reads like strtoul: "1gpu" is 1
    if number is None or int(number[0]) >= len(uuids):
        return None
    return int(number[0])
