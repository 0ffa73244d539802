from pathlib import Path

import pytest
import torch

from harness.errors import OutOfMemory
from harness.models.memory import available_memory_bytes, peak_memory_bytes, translate_out_of_memory

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
    ],
)
def test_every_way_of_running_out_of_memory_is_the_same_error(error: Exception) -> None:
    with (
        pytest.raises(OutOfMemory, match="Out of memory while decoding") as caught,
        translate_out_of_memory("decoding"),
    ):
        raise error
    assert caught.value.__cause__ is error


def test_the_allocator_of_the_cpu_is_understood() -> None:
    with pytest.raises(OutOfMemory), translate_out_of_memory("allocating"):
        torch.empty(2**60, dtype=torch.uint8)


def test_other_errors_pass_unchanged() -> None:
    error = RuntimeError("shapes do not match")
    with pytest.raises(RuntimeError) as caught, translate_out_of_memory("stepping"):
        raise error
    assert caught.value is error


def test_the_peak_of_a_process_does_not_fall_when_memory_is_freed() -> None:
    block = torch.ones(64 * 1024**2, dtype=torch.uint8)
    with_block = peak_memory_bytes([CPU])
    del block
    after = peak_memory_bytes([CPU])
    assert with_block is not None
    assert after is not None
    # The kernel counts per thread and adds up now and then, so two reads may differ a little.
    assert after > with_block - 16 * 1024**2
    assert with_block > 64 * 1024**2


def test_available_memory_is_between_nothing_and_the_machine() -> None:
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < available_memory_bytes(CPU) <= total
