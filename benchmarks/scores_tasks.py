"""The tasks and their bars: what is predicted of what, on which split, and how well it has to be."""

from dataclasses import dataclass

PER_GPU = ("NVIDIA A100-SXM4-80GB", "NVIDIA B200", "NVIDIA H100 80GB HBM3", "NVIDIA H200")
GPU_OUT = ("NVIDIA H200", "NVIDIA B200")  # those whose kernels have power
SERVER_GPU_OUT = ("NVIDIA B200", "NVIDIA H100 80GB HBM3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What a metric has to reach."""

    quantity: str
    metric: str
    limit: float
    at_least: bool = False

    def met(self, value: float) -> bool:
        """Whether a value reaches it."""
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One line of the table, or several where it has several bars."""

    key: str
    title: str
    split: str
    quantities: tuple[str, ...]
    bars: tuple[Bar, ...] = ()
    leads: tuple[tuple[str, str], ...] = ()  # quantity and metric shown where there is no bar


COVERAGE_LOW, COVERAGE_HIGH = 0.86, 0.94
_SHAPES, _GPU, _SOURCE = "unseen shapes", "one GPU left out", "trained on none of it"
_MODEL = "models left out by family"


def _time(limit: float, metric: str = "median_ape") -> Bar:
    return Bar(quantity="time", metric=metric, limit=limit)


def _energy(metric: str, limit: float) -> Bar:
    return Bar(quantity="energy", metric=metric, limit=limit, at_least=metric.startswith("eba"))


def _kernel_gpu_out(gpu: str) -> Task:
    other = next(name for name in GPU_OUT if name != gpu)
    return Task(
        key=f"kernel-gpu-out/{gpu}",
        title=f"kernels over 0.1 ms, {other} → {gpu}",
        split=_GPU,
        quantities=("energy", "power", "time"),
        bars=(_energy("mape", 0.30), _energy("median_ape", 0.18)),
    )


def _server_gpu_out(gpu: str, *, strict: bool) -> Task:
    return Task(
        key=f"ml-energy-gpu-out{'' if strict else '-kernels-known'}/{gpu}",
        title=f"ML.ENERGY, energy per token, {gpu}" + ("" if strict else ", its kernels known"),
        split=_GPU,
        quantities=("energy", "power", "time"),
        bars=(_energy("mape", 0.22),),
    )


TASKS: tuple[Task, ...] = (
    Task(key="kernel-gemm", title="kernel time, GEMM", split=_SHAPES, quantities=("time",), bars=(_time(0.05),)),
    Task(key="kernel-all", title="kernel time, all kernels", split=_SHAPES, quantities=("time",), bars=(_time(0.08),)),
    *(
        Task(
            key=f"kernel-{kind}/{gpu}",
            title=f"kernel time, {title}, {gpu}",
            split=_SHAPES,
            quantities=("time",),
            leads=(("time", "median_ape"),),
        )
        for gpu in PER_GPU
        for kind, title in (("gemm", "GEMM"), ("all", "all kernels"))
    ),
    Task(
        key="kernel-energy",
        title="kernel energy, B200 and H200",
        split=_SHAPES,
        quantities=("energy", "power", "time"),
        bars=(_energy("median_ape", 0.08), _energy("eba10", 0.65)),
    ),
    Task(
        key="kernel-energy-long",
        title="kernel energy over 0.1 ms, B200 and H200",
        split=_SHAPES,
        quantities=("energy", "power", "time"),
        leads=(("energy", "median_ape"), ("energy", "eba10")),
    ),
    *(
        Task(
            key=f"kernel-energy{suffix}/{gpu}",
            title=f"kernel energy{title}, {gpu}",
            split=_SHAPES,
            quantities=("energy", "power", "time"),
            leads=(("energy", "median_ape"), ("energy", "eba10")),
        )
        for gpu in sorted(GPU_OUT)
        for suffix, title in (("", ""), ("-long", " over 0.1 ms"))
    ),
    *(_kernel_gpu_out(gpu) for gpu in GPU_OUT),
    Task(
        key="energy-inference-model-out",
        title="energy-inference, request energy",
        split=_MODEL,
        quantities=("energy", "power", "time"),
        bars=(_energy("mape", 0.09), _energy("eba10", 0.65)),
    ),
    Task(
        key="energy-inference-source-out",
        title="energy-inference, request energy and time",
        split=_SOURCE,
        quantities=("energy", "power", "time"),
        bars=(_energy("mape", 0.14), _time(0.20, "mape")),
    ),
    Task(
        key="energaizer-source-out",
        title="energaizer, prefill energy",
        split=_SOURCE,
        quantities=("energy", "power", "time"),
        bars=(_energy("mape", 0.18),),
    ),
    Task(
        key="ml-energy-model-out",
        title="ML.ENERGY, energy per token",
        split=_MODEL,
        quantities=("energy", "power", "time"),
        bars=(_energy("mape", 0.17),),
    ),
    Task(
        key="ml-energy-model-out-device-bound",
        title="ML.ENERGY, energy per token, rows not bound by the host",
        split=_MODEL,
        quantities=("energy", "power", "time"),
        leads=(("energy", "mape"),),
    ),
    *(_server_gpu_out(gpu, strict=strict) for gpu in SERVER_GPU_OUT for strict in (True, False)),
    Task(
        key="splitwise-source-out",
        title="splitwise, phase latency",
        split=_SOURCE,
        quantities=("time", "energy", "power"),
        bars=(_time(0.12),),
    ),
    Task(
        key="splitwise-source-out-host-stated",
        title="splitwise, phase latency, host time per launch stated",
        split=_SOURCE,
        quantities=("time", "energy", "power"),
        bars=(_time(0.12),),
    ),
)


def task_named(key: str) -> Task:
    """A task by its key; raises ``KeyError``."""
    return {task.key: task for task in TASKS}[key]
