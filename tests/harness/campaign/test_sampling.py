"""Few samples cover the tails, and weighted means are unbiased."""

import random
from collections import Counter
from collections.abc import Sequence
from statistics import mean, stdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.campaign.plan import Plan
from harness.campaign.sampling import WantedRequest, _output, _prompt, _sampled, sample_requests, stratify
from harness.campaign.traces import LengthPair, Trace, load_trace
from harness.errors import UsageError

TRACES = st.dictionaries(
    st.tuples(st.integers(1, 40), st.integers(1, 40)), st.integers(1, 30), min_size=5, max_size=60
).map(
    lambda counts: Trace(
        name="made up",
        pairs=tuple(LengthPair(prompt_tokens=p, output_tokens=o, requests=n) for (p, o), n in sorted(counts.items())),
    )
)


@pytest.fixture(scope="module", params=["azure-2023", "azure-2023-conversation", "azure-2023-code"])
def trace(request: pytest.FixtureRequest) -> Trace:
    return load_trace(request.param)


def quantiles(trace: Trace) -> tuple[int, int, int, int]:
    """p10 and p90 of prompt and output, read off the sorted requests."""
    prompts = sorted(p.prompt_tokens for p in trace.pairs for _ in range(p.requests))
    outputs = sorted(p.output_tokens for p in trace.pairs for _ in range(p.requests))
    low, high = (len(prompts) - 1) // 10, -(-9 * (len(prompts) - 1) // 10)
    return prompts[low], prompts[high], outputs[low], outputs[high]


def covers_the_tails(wanted: Sequence[WantedRequest], trace: Trace) -> bool:
    p10_prompt, p90_prompt, p10_output, p90_output = quantiles(trace)
    return (
        any(w.prompt_tokens >= p90_prompt for w in wanted)
        and any(w.output_tokens >= p90_output for w in wanted)
        and any(w.prompt_tokens <= p10_prompt for w in wanted)
        and any(w.output_tokens <= p10_output for w in wanted)
    )


@pytest.mark.parametrize("samples", [5, 8])
def test_every_seed_draws_from_each_tail(trace: Trace, samples: int) -> None:
    strata = stratify(trace, samples)
    p10_prompt, p90_prompt, p10_output, p90_output = quantiles(trace)
    for seed in range(300):
        wanted = _sampled(strata, (1, 2, 4, 8), random.Random(seed))
        assert max(w.prompt_tokens for w in wanted) >= p90_prompt
        assert max(w.output_tokens for w in wanted) >= p90_output
        assert min(w.prompt_tokens for w in wanted) <= p10_prompt
        assert min(w.output_tokens for w in wanted) <= p10_output


@settings(max_examples=150)
@given(trace=TRACES, data=st.data())
def test_the_tails_are_covered_on_any_trace(trace: Trace, data: st.DataObject) -> None:
    samples = data.draw(st.integers(5, len(trace.pairs)))
    wanted = sample_requests(Plan(samples=samples, seed=data.draw(st.integers(0, 99))), trace)
    assert len({(w.prompt_tokens, w.output_tokens) for w in wanted}) == samples, "no request twice"
    assert covers_the_tails(wanted, trace)


@settings(max_examples=100)
@given(trace=TRACES, data=st.data())
def test_strata_divide_the_trace(trace: Trace, data: st.DataObject) -> None:
    strata = stratify(trace, data.draw(st.integers(1, len(trace.pairs))))
    assert sorted(
        (pair for stratum in strata for pair in stratum.pairs), key=lambda p: (p.prompt_tokens, p.output_tokens)
    ) == list(trace.pairs)


@settings(max_examples=100)
@given(trace=TRACES, data=st.data())
def test_the_expected_weighted_mean_is_exactly_the_mean_of_the_trace(trace: Trace, data: st.DataObject) -> None:
    samples = data.draw(st.integers(1, len(trace.pairs)))
    strata = stratify(trace, samples)
    weights = {stratum: samples * stratum.requests / trace.requests for stratum in strata}
    expected = sum(
        weights[stratum] * sum(pair.prompt_tokens * pair.requests for pair in stratum.pairs) / stratum.requests
        for stratum in strata
    )
    wanted = sample_requests(Plan(samples=samples), trace)
    assert expected / samples == pytest.approx(
        sum(pair.prompt_tokens * pair.requests for pair in trace.pairs) / trace.requests
    )
    assert sorted(w.sampling_weight or 0 for w in wanted) == pytest.approx(sorted(weights.values()))
    assert sum(w.sampling_weight or 0 for w in wanted) == pytest.approx(samples)


def test_weighted_means_average_to_those_of_the_trace(trace: Trace) -> None:
    strata = stratify(trace, 8)
    prompts, outputs = [], []
    for seed in range(500):
        wanted = _sampled(strata, (1,), random.Random(seed))
        prompts.append(mean((w.sampling_weight or 0) * w.prompt_tokens for w in wanted))
        outputs.append(mean((w.sampling_weight or 0) * w.output_tokens for w in wanted))
    for found, length in ((prompts, _prompt), (outputs, _output)):
        true = sum(length(pair) * pair.requests for pair in trace.pairs) / trace.requests
        assert abs(mean(found) - true) < 4 * stdev(found) / len(found) ** 0.5, "within four standard errors"


def test_eight_stratified_samples_spread_less_than_eight_plain_ones(trace: Trace) -> None:
    def spread(values: Sequence[float]) -> float:
        centre = mean(values)
        return mean((value - centre) ** 2 for value in values)

    strata = stratify(trace, 8)
    population = [pair.prompt_tokens for pair in trace.pairs for _ in range(pair.requests)]
    stratified, plain = [], []
    for seed in range(300):
        rng = random.Random(seed)
        stratified.append(mean((w.sampling_weight or 0) * w.prompt_tokens for w in _sampled(strata, (1,), rng)))
        plain.append(mean(rng.choices(population, k=8)))
    assert spread(stratified) < spread(plain) / 2


def test_batch_sizes_are_balanced(trace: Trace) -> None:
    for seed in range(4):
        wanted = sample_requests(Plan(samples=10, batch_sizes=(1, 4, 16, 64), seed=seed), trace)
        assert sorted(Counter(w.batch_size for w in wanted).values()) == [2, 2, 3, 3]


def test_every_batch_size_meets_long_and_short_prompts() -> None:
    trace = load_trace("azure-2023")
    wanted = sample_requests(Plan(samples=64, batch_sizes=(1, 8)), trace)
    for batch in (1, 8):
        prompts = [w.prompt_tokens for w in wanted if w.batch_size == batch]
        assert min(prompts) < 100
        assert max(prompts) > 4000


def test_the_same_seed_gives_the_same_requests_on_every_machine() -> None:
    wanted = sample_requests(Plan(samples=5, seed=11))
    found = [(w.batch_size, w.prompt_tokens, w.output_tokens, round(w.sampling_weight or 0, 6)) for w in wanted]
    assert found == [
        (2, 2494, 10, 0.422388),
        (1, 374, 59, 3.04772),
        (8, 181, 106, 0.524747),
        (1, 4081, 50, 0.502572),
        (4, 1074, 428, 0.502572),
    ]
    assert sample_requests(Plan(samples=5, seed=12)) != wanted


def test_more_samples_than_pairs_of_lengths_is_an_error() -> None:
    trace = Trace(name="tiny", pairs=(LengthPair(prompt_tokens=1, output_tokens=1, requests=5),))
    with pytest.raises(UsageError, match=r"2 different requests cannot be sampled from tiny(?s:.*)at most 1"):
        sample_requests(Plan(samples=2), trace)
    assert len(sample_requests(Plan(samples=1), trace)) == 1


def test_a_grid_is_every_combination_once_in_random_order() -> None:
    plan = Plan(sampling="grid", batch_sizes=(1, 2), prompt_tokens=(8, 16, 32), output_tokens=(4, 5))
    wanted = sample_requests(plan)
    sizes = [(w.batch_size, w.prompt_tokens, w.output_tokens) for w in wanted]
    assert len(set(sizes)) == len(sizes) == 12
    assert sizes != sorted(sizes)
    assert all(w.sampling_weight is None for w in wanted)


def test_a_list_keeps_its_order() -> None:
    wanted = sample_requests(Plan.from_table({"requests": ["8x9x10", "1x2x3"]}))
    assert [(w.batch_size, w.prompt_tokens, w.output_tokens) for w in wanted] == [(8, 9, 10), (1, 2, 3)]
