"""200 deliveries at once, a third of them repeats, two pipelines, two workers: none lost, none doubled."""

import threading
import time

from bridge.ports import RunFilter
from tests.web.serving import PATIENCE_SECONDS, served

DELIVERIES = 200
DISTINCT = 134
PIPELINES = 2


def test_as_many_runs_as_distinct_deliveries_times_pipelines(tmp_path):
    with served(tmp_path, "--workers", "2") as gateway:
        barrier = threading.Barrier(DELIVERIES)
        answers = {number: [] for number in range(DELIVERIES)}

        def deliver(number):
            barrier.wait(timeout=PATIENCE_SECONDS)
            deadline = time.monotonic() + PATIENCE_SECONDS
            while time.monotonic() < deadline:
                status, answer = gateway.deliver(f"d-{number % DISTINCT}")
                answers[number].append((status, answer))
                if status != 503:  # not stored, says the protocol: send it again
                    return

        threads = [threading.Thread(target=deliver, args=(number,)) for number in range(DELIVERIES)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=2 * PATIENCE_SECONDS)
        stored = gateway.runs.list(RunFilter())

    final = [tries[-1] for tries in answers.values()]
    assert [status for status, _ in final] == [202] * DELIVERIES
    runs = [run for _, answer in final for run in answer["runs"]]
    assert len(stored) == DISTINCT * PIPELINES
    assert {run.id for run in stored} == {run["id"] for run in runs}
    created = [run["id"] for run in runs if not run["duplicate"]]
    assert len(created) == len(set(created))
    if all(len(tries) == 1 for tries in answers.values()):
        assert len(created) == DISTINCT * PIPELINES
