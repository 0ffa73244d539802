from benchmarks.execution import Status
from benchmarks.workers import Worker, execute_all

CRASH, EXCEPTION, HANG = "__import__('os').abort()", "1 / 0", "__import__('signal').pause()"


def test_a_type_that_crashes_is_a_result_and_the_next_one_runs() -> None:
    with Worker(eval, limit_s=30) as worker:
        crashed = worker.execute(CRASH)
        raised = worker.execute(EXCEPTION)
        after: object = worker.execute("6 * 7")

    assert crashed.status is raised.status is Status.CANNOT_RUN
    assert crashed.reason == "its process died: SIGABRT"
    assert raised.reason == "its process died: exit code 1"
    assert after == 42


def test_a_type_that_hangs_is_a_result_when_its_time_is_up() -> None:
    with Worker(eval, limit_s=0.1) as worker:
        hung = worker.execute(HANG)

    assert (hung.model_type, hung.status) == (HANG, Status.CANNOT_RUN)
    assert hung.reason == "it did not end within 0.1 s"


def test_several_workers_share_the_types() -> None:
    results: list[object] = []

    execute_all(["1 + 1", "2 + 2", "3 + 3"], eval, jobs=2, limit_s=30, done=results.append)

    assert sorted(map(str, results)) == ["2", "4", "6"]
