"""Rows in which nothing is known yet: importers fill in what their source says and leave the rest null."""

from dataclasses import fields, replace

from harness.dataset.importers.importing import content_id
from harness.records import SCHEMA_VERSION, EnvironmentRow, Provenance, RunRow, Status

BLANK_RUN = RunRow(
    run_id="",
    schema_version=SCHEMA_VERSION,
    campaign_id="",
    environment_id=None,
    provenance=Provenance.IMPORTED,
    source="",
    model=None,
    model_revision=None,
    weights=None,
    config_sha256=None,
    dtype=None,
    quantization=None,
    runtime=None,
    attention=None,
    kv_cache=None,
    cuda_graphs=None,
    gpu="",
    n_gpus=1,
    parallelism=None,
    tensor_parallel=None,
    batch_size=None,
    prompt_tokens=None,
    output_tokens=None,
    prompts=None,
    sampling_weight=None,
    clipped=None,
    status=Status.OK,
    status_detail=None,
    energy_j=None,
    energy_ci95_j=None,
    duration_s=None,
    idle_power_w=None,
    residual_j=None,
    residual_ci95_j=None,
    trials=None,
    method=None,
    quality=None,
    peak_memory_bytes=None,
    started_at_utc=None,
    configuration=None,
    superseded_by=None,
)

BLANK_ENVIRONMENT = EnvironmentRow(
    environment_id="",
    gpu="",
    device_name="",
    n_devices=None,
    cpu=None,
    cpu_cores=None,
    memory_bytes=None,
    virtual_machine=None,
    driver=None,
    cuda=None,
    vbios=None,
    power_limit_w=None,
    ecc=None,
    mig=None,
    persistence_mode=None,
    topology=None,
    os=None,
    python=None,
    torch=None,
    transformers=None,
    harness=None,
    threads=None,
    meter="",
    meter_step_s=None,
    peak_flop_per_s=None,
    peak_bytes_per_s=None,
    calibration=None,
)


def identified(row: EnvironmentRow) -> EnvironmentRow:
    """The same environment under the hash of its other columns: equal set-ups get equal ids."""
    values = [getattr(row, field.name) for field in fields(row) if field.name != "environment_id"]
    return replace(row, environment_id=content_id(*values))
