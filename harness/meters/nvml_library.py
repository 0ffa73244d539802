"""NVML's library, initialised: every call has a time-out, and an error becomes ours in this one place."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from harness.errors import MeterError, MeterFailed, MeterUnavailable
from harness.meters.base import closed
from harness.meters.guard import CallGuard, CallHung
from harness.meters.nvml_errors import HUNG, Meaning, meaning

_Answer = TypeVar("_Answer")

# A driver that nobody keeps loaded (no persistence mode) takes seconds per GPU to start.
START_TIMEOUT_S: Final = 60.0
# A call takes well below a millisecond, some milliseconds while the driver is busy.
CALL_TIMEOUT_S: Final = 5.0


class Nvml:
    """The library behind ``api``, which is the module ``pynvml``; raises ``MeterUnavailable``.

    Calls are made by a ``CallGuard``, so that one that hangs raises after ``timeout_s``, cause ``HUNG``, and every
    later one at once. ``guarded=False`` is for a process that somebody else watches.
    """

    def __init__(self, api: Any, *, timeout_s: float = CALL_TIMEOUT_S, guarded: bool = True) -> None:
        self.api: Any = api
        self.timeout_s = timeout_s
        self._closed = False
        self._guard = CallGuard("nvml") if guarded else None
        try:
            self.call("nvmlInit", failure=MeterUnavailable, timeout_s=max(timeout_s, START_TIMEOUT_S))
        except MeterError:
            self._stop()
            raise

    def call(
        self,
        function: str,
        *arguments: Any,
        device: str = "NVML",
        failure: type[MeterError] = MeterFailed,
        timeout_s: float | None = None,
    ) -> Any:
        """The function's answer; raises ``failure`` with what NVML said, why, and what to do."""
        job = lambda: getattr(self.api, function)(*arguments)  # noqa: E731
        return self.together(job, function, device=device, failure=failure, timeout_s=timeout_s)

    def together(
        self,
        job: Callable[[], _Answer],
        name: str,
        *,
        device: str = "NVML",
        failure: type[MeterError] = MeterFailed,
        timeout_s: float | None = None,
    ) -> _Answer:
        """What ``job``, which may make several calls, answers: one hand-over and one time-out for all of them."""
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        if self._closed:
            raise closed(device)
        try:
            return job() if self._guard is None else self._guard.call(job, timeout_s)
        except CallHung:
            raise _error(failure, f"{device}: {name} did not come back within {timeout_s:g} s", HUNG) from None
        except self.api.NVMLError as error:
            said = f"{device}: {name} answered {_text(error)!r} ({error.value})"
            raise _error(failure, said, meaning(error.value)) from error

    def ask(self, function: str, *arguments: Any) -> Any | None:
        """The function's answer; ``None`` where this GPU or this driver has none, or it hangs."""
        try:
            return self.ask_together(lambda: getattr(self.api, function)(*arguments))
        except (self.api.NVMLError, self.api.NVMLLibraryMismatchError):
            return None

    def ask_together(self, job: Callable[[], _Answer]) -> _Answer | None:
        """What ``job``, which may ask several things, answers: one hand-over for all; ``None`` where it hangs."""
        if self._closed:
            return None
        try:
            return job() if self._guard is None else self._guard.call(job, self.timeout_s)
        except CallHung:
            return None

    def close(self) -> None:
        """Let go of the library; NVML counts its users. One that hangs stays open: shutting it down would hang too."""
        if not self._closed:
            self.ask("nvmlShutdown")
            self._stop()

    def _stop(self) -> None:
        self._closed = True
        if self._guard is not None:
            self._guard.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _error(failure: type[MeterError], said: str, meaning: Meaning) -> MeterError:
    return failure(f"{said}: {meaning.why}.\n{meaning.remedy}", cause=meaning.cause)


def _text(error: Any) -> str:
    """NVML's words for an error; pynvml asks the library for those that it does not know."""
    return str(error) or "an unknown error"
