"""``--reference-pack``: the same runs for everybody, whatever else is on the command line."""

from pathlib import Path

import pytest

from harness.campaign.options import parse
from harness.dataset.contributions.pack import reference_pack
from harness.errors import UsageError
from harness.meters.gpus import GpuSearch
from harness.meters.nvml_device import GpuHandle
from harness.records import Quality

GPU_REQUESTS = ["1x2048x16", "1x128x256", "32x512x16", "32x128x256"]

GPU_HANDLE = GpuHandle(uuid="GPU-0", board_uuid="GPU-0", name="NVIDIA A100-SXM4-80GB", memory_bytes=None)


def requests(line: str) -> list[str]:
    return [str(request) for request in parse(line.split()).plan.requests]


@pytest.mark.parametrize("device", ["cuda", "virtual:a100-sxm"])
def test_a_gpu_gets_the_pack_for_gpus(device: str) -> None:
    plan = parse(["--reference-pack", "--device", device]).plan

    assert [str(request) for request in plan.requests] == GPU_REQUESTS
    assert (plan.models, plan.random_weights, plan.device) == (("Qwen/Qwen2.5-1.5B",), True, device)


def test_a_cpu_gets_the_pack_for_cpus() -> None:
    assert requests("--reference-pack --device cpu") == ["1x256x8", "1x32x32", "4x64x16"]


@pytest.mark.parametrize(("gpus", "wanted"), [(0, 3), (1, 4)])
def test_without_a_device_the_driver_is_asked(monkeypatch: pytest.MonkeyPatch, gpus: int, wanted: int) -> None:
    found = GpuSearch(gpus=tuple(GPU_HANDLE for _ in range(gpus)), why_none=None)
    monkeypatch.setattr("harness.meters.selection.find_gpus", lambda: found)

    assert len(requests("--reference-pack")) == wanted


def test_what_does_not_change_the_runs_goes_with_it(tmp_path: Path) -> None:
    line = f"--reference-pack --device virtual:l40s --gpus 1,2 --quality quick --kernel-energy replay --out {tmp_path}"
    invocation = parse(line.split())

    plan = invocation.plan
    assert (plan.gpus, plan.quality, plan.kernel_energy, invocation.out) == ((1, 2), Quality.QUICK, "replay", tmp_path)
    assert [str(request) for request in plan.requests] == GPU_REQUESTS


@pytest.mark.parametrize(
    "extra",
    [
        *("--samples 3", "--seed 1", "--models x", "--requests 1x2x3", "--dtype float32", "--attention eager"),
        *("--no-kv-cache", "--no-random-weights", "--batch-sizes 1", "--time-budget 5min", "--no-trace-kernels"),
        *("--cpu-threads 2", "--revision main", "--sampling list", "--prompt-tokens 8", "--nodes 2", "--plan x.toml"),
        *("--node-rank 1", "--rendezvous a:1"),
    ],
)
def test_what_would_change_the_runs_is_refused(extra: str) -> None:
    with pytest.raises(UsageError, match=extra.split()[0].replace("--no-", "--")):
        parse(["--reference-pack", "--device", "cuda", *extra.split()])


def test_one_gpu_has_to_be_among_the_counts() -> None:
    with pytest.raises(UsageError, match="Labs are compared on one GPU"):
        parse(["--reference-pack", "--device", "cuda", "--gpus", "4"])
    assert parse(["--reference-pack", "--gpus", "1", "4"]).plan.gpus == (1, 4)


def test_the_pack_has_one_campaign_everywhere() -> None:
    first, second = (parse(["--reference-pack", "--device", "cuda", *more]).plan for more in ([], ["--gpus", "1"]))

    assert first.campaign_id == parse(["--reference-pack", "--device", "cuda"]).plan.campaign_id
    assert first.requests == second.requests
    assert dict(reference_pack().on_gpu.plan)["requests"] == GPU_REQUESTS
