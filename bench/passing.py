"""One pass of a controller, as a process of its own: `python -m bench.passing`. Prints figures as JSON."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

from bridge import settings as settings_of
from bridge.cluster.api import Api
from bridge.flows.controlling import WORKERS
from bridge.wiring.cluster import cluster_api
from bridge.wiring.controlling import Controller, controller_of
from bridge.wiring.reporting import Unposted


class _Counted:
    """Counts the requests that go out."""

    def __init__(self) -> None:
        self._numbers = count()
        self.requests = 0
        sent = Api._sent

        def counted(*args, **kwargs):
            self.requests = next(self._numbers) + 1
            return sent(*args, **kwargs)

        Api._sent = counted  # type: ignore[method-assign]


def main() -> None:
    """Sync, pass twice, and measure the second pass: the first one submits what was never seen."""
    counted = _Counted()
    settings = settings_of.load()
    controller = controller_of(settings, cluster_api(settings), reports_of=lambda *_: Unposted())
    ports = controller.ports
    began = time.monotonic()
    caches = (ports.projects.cache, ports.pipelines.cache, controller.index.cache)
    for cache in caches:
        cache.start()
    for cache in caches:
        cache.watching.synced.wait()
    synced = time.monotonic() - began
    controller.lease.start()
    controller.lease.wait_held(timeout_seconds=60)
    _pass(controller)
    cpu, requests, began = time.process_time(), counted.requests, time.monotonic()
    _pass(controller)
    figures = {
        "sync_s": round(synced, 2),
        "pass_s": round(time.monotonic() - began, 2),
        "pass_cpu_s": round(time.process_time() - cpu, 2),
        "pass_requests": counted.requests - requests,
        "rss_mb": round(_peak_kilobytes() / 1024, 1),
    }
    print(json.dumps(figures), flush=True)


def _peak_kilobytes() -> int:
    """Of this program: `getrusage` would count what its parent had when it forked."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def _pass(controller: Controller) -> None:
    """A look at every open run."""
    with ThreadPoolExecutor(WORKERS) as pool:
        for run in controller.index.open():
            pool.submit(controller.flow.reconcile, run)


if __name__ == "__main__":
    main()
