"""`bridgectl` with one of its virtues switched off, to see that the demo notices: `python -m tests.demo.without VIRTUE …`.

Nothing of this is in the product: the switch is made by replacing what the product uses.
"""

import functools
import sys
import time
import uuid
from dataclasses import replace

from bridge import cli

VIRTUES = ("dedupe", "retry", "recovery")
FORGETFUL = "tests.demo.without:forgetful()"


def without_dedupe() -> None:
    """Every delivery is a new one."""
    from bridge.wiring import serving

    serving.serve = functools.partial(serving.serve, gateway=FORGETFUL)


def forgetful():
    """The gateway's app, whose deliveries never look alike."""
    from bridge.web import hooks
    from bridge.wsgi import local

    accept = hooks.accept

    def accept_anew(event, project, **more):
        return accept(replace(event, delivery=f"{event.delivery}-{uuid.uuid4()}"), project, **more)

    hooks.accept = accept_anew
    return local()


def without_retry() -> None:
    """Every step gets one try, whatever its pipeline says."""
    from bridge import rendering

    read_file = rendering.read_file

    def read_once(path):
        pipeline = read_file(path)
        return replace(pipeline, steps=tuple(replace(step, tries=1) for step in pipeline.steps))

    rendering.read_file = read_once


def without_recovery() -> None:
    """What was there before this start is never looked at again."""
    from bridge.flows import controlling

    began = time.time()
    known = controlling.ListedIndex.open

    def open_since(self):
        return [run for run in known(self) if self._runs.read(run).accepted >= began]

    controlling.ListedIndex.open = open_since


if __name__ == "__main__":
    virtue = sys.argv.pop(1)
    {"dedupe": without_dedupe, "retry": without_retry, "recovery": without_recovery}[virtue]()
    cli.main()
