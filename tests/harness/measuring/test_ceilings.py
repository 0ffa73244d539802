import pytest
import torch

from harness.measuring import ceilings


def test_a_probe_gives_positive_rates_of_two_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "_PROBE_S", 1e-3)
    monkeypatch.setattr(ceilings, "_SIDE", 64)
    monkeypatch.setattr(ceilings, "_COPIED_BYTES", 1024**2)
    threads = torch.get_num_threads()

    found = ceilings.probe_cpu("bfloat16", threads=threads)

    for rate in (found.flop_per_s, found.bytes_per_s):
        assert rate is not None
        assert rate > 0
        assert float(f"{rate:.2g}") == rate
