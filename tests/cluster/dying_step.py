"""`python -m tests.cluster.dying_step run …`: a step that is killed before or after one of its writes to the API server.

DYING_AT is `3:before` or `3:after`; DYING_COUNT is a file in which each write gets a line.
"""

import os
import signal
from functools import cached_property
from pathlib import Path

from bridge import step
from bridge.cluster.api import Api
from bridge.wiring.cluster_steps import ClusterPlace
from bridge.wiring.steps import place_of


class DyingApi:
    """An Api that does not outlive its writing."""

    def __init__(self, api):
        self._api = api
        self._writes = 0

    def __getattr__(self, name):
        real = getattr(self._api, name)
        if name not in {"create", "patch", "delete"}:
            return real

        def write(*args, **kwargs):
            self._writes += 1
            if "DYING_COUNT" in os.environ:
                with Path(os.environ["DYING_COUNT"]).open("a") as file:
                    file.write(f"{name} {args[0]}\n")
            self._die_if_told("before")
            try:
                return real(*args, **kwargs)
            finally:
                self._die_if_told("after")

        return write

    def _die_if_told(self, when):
        if os.environ.get("DYING_AT") == f"{self._writes}:{when}":
            os.kill(os.getpid(), signal.SIGKILL)


class DyingPlace(ClusterPlace):
    """Where such a step stands."""

    @cached_property
    def api(self):
        return DyingApi(Api(self.connection))


if __name__ == "__main__":
    step.main(where=lambda flags: DyingPlace(**vars(place_of(flags))))
