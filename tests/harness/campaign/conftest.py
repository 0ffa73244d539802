"""A site, a model and a plan that need no torch, for campaigns whose worker is a stand-in."""

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.campaign.campaign import Surroundings
from harness.campaign.plan import Plan
from harness.campaign.planning import Subject
from harness.campaign.site import Site
from harness.measuring.attribution import Ceilings
from harness.models.facts import ModelFacts
from harness.models.source import ModelSource, SourceKind
from harness.records import Provenance, Weights

FACTS = ModelFacts(
    model_type="llama",
    parameters=1_000_000,
    active_parameters=None,
    embedding_parameters=100_000,
    lm_head_parameters=0,
    layers=2,
    hidden_size=64,
    heads=4,
    kv_heads=2,
    head_dim=16,
    kv_elements_per_token=128,
    state_elements_per_sequence=0,
    context_tokens=2048,
    vocabulary_tokens=300,
    config_sha256="0" * 64,
    quantization=None,
    quantized_bits=None,
    attentions=("sdpa", "eager"),
)
SOURCE = ModelSource(
    name="tiny", kind=SourceKind.CONFIG, location=Path("config.json"), revision=None, weights=Weights.RANDOM
)


@pytest.fixture
def site() -> Site:
    """A small CPU whose energy is estimated."""
    return Site(
        device="cpu",
        gpu="cpu: Example CPU",
        gpu_counts=(0,),
        gpu_uuids=(),
        dtype="float32",
        ceilings=Ceilings(flop_per_s=1e11, bytes_per_s=1e10),
        memory_bytes=8 * 1024**3,
        idle_power_w=10.0,
        load_power_w=30.0,
        provenance=Provenance.ESTIMATED,
        meter="example",
        why_meter="an example",
    )


@pytest.fixture
def look(site: Site) -> Callable[[], Surroundings]:
    """What ``Campaign.open`` asks for the surroundings."""
    return lambda: Surroundings(site=site, subjects=(Subject(source=SOURCE, facts=FACTS),))


@pytest.fixture
def plan() -> Plan:
    """Four requests in growing sizes."""
    return Plan.from_table({"requests": ["1x8x4", "2x8x4", "1x16x4", "4x32x8"], "quality": "quick"})
