"""A mapping to start from, as `python -m harness.convert --example-mapping` prints it: every section explained."""

from typing import Final

EXAMPLE: Final = """\
# What the columns of one file mean. Use: python -m harness.convert table FILE.csv --mapping map.toml --out DIR
#
# A value is a constant, or a column of the file:
#     { column = "latency_ms", unit = "ms" }               # units: J mJ uJ kJ MJ Wh kWh, s ms us ns min h, W mW kW,
#                                                          # B kB MB GB KiB MiB GiB, FLOP MFLOP GFLOP TFLOP, MHz GHz
#     { column = "power", unit = "W", times = "latency_ms", times_unit = "ms" }        # energy = power × time
#     { column = "gpu", values = { "h100" = "NVIDIA H100 80GB HBM3" } }                # words of the file → ours
#     { column = "energy", unit = "J", missing = ["0"] }   # what stands for "not known" besides an empty cell
# What a row does not give is left out here: it is null in the dataset, never 0.

[source]                       # who made the numbers, and on which terms they may be used
source = "example-lab"
title = "Energy of LLM inference at the example lab"
url = "https://example.org/data"
version = "2026-11"
licence = "CC-BY-4.0"          # SPDX identifier; leave it out if none is stated
citation = "A. Author, 2026"
measured = "energy: NVML counter around one generate call; time: host clock"
derived = "nothing"

[environment]                  # columns of `environments`
meter = "nvml counter"
power_limit_w = { column = "limit", unit = "W" }

[runs]                         # columns of `runs`; rows equal in all but measured values are repeats of one run
gpu = { column = "gpu", values = { "h100" = "NVIDIA H100 80GB HBM3" } }
n_gpus = 1
tensor_parallel = 1
model = { column = "model" }
dtype = "bfloat16"
runtime = "vllm"
batch_size = { column = "batch" }
prompt_tokens = { column = "input_tokens" }
output_tokens = { column = "output_tokens" }
energy_j = { column = "energy_wh", unit = "Wh" }
duration_s = { column = "latency_ms", unit = "ms" }

[phases.prefill]               # energy_j and duration_s of a phase, where the file has them
duration_s = { column = "ttft_ms", unit = "ms" }

# [kernels]                    # instead of phases: each row is one kernel measured alone
# kind = "gemm"                # see harness/kernels.py
# op = "gemm"
# dtype = "bfloat16"
# shape = { m = { column = "m" }, n = { column = "n" }, k = { column = "k" } }
# variant = { library = { column = "backend" } }
# duration_s = { column = "time_us", unit = "us" }
# energy_j = { column = "power", unit = "W", times = "time_us", times_unit = "us" }

[[filters]]                    # rows to leave out, each for a reason
rule = "a warm-up pass"
column = "iteration"
equals = "0"                   # or: not_equals, at_least, at_most, is_missing = true
"""
