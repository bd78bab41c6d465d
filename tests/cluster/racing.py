"""Steps that start at the same moment, round after round, each in a process of its own.

`python -m tests.cluster.racing` has imported the step already; for each line on its standard input (a JSON list: the
step's name, then the flags) it forks one, which waits for another line before it begins.
"""

import json
import os
import signal
import subprocess
import sys

from tests.cluster.step_world import ROOT


class Racers:
    """So many of these processes. A context manager."""

    def __init__(self, environment, number):
        argv = [sys.executable, "-m", "tests.cluster.racing"]
        self._processes = [
            subprocess.Popen(
                argv,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                bufsize=1,
            )
            for _ in range(number)
        ]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self._processes:
            process.stdin.close()
            process.wait(60)
            process.stdout.close()

    def race(self, step, *flags):
        """Let a step of each begin; what each says first of its build. They are ended then, and the build goes on."""
        pids = [self._tell(process, [step, *flags]) for process in self._processes]
        for process in self._processes:
            print("go", file=process.stdin, flush=True)
        said = [process.stdout.readline().removeprefix("brig: ").strip() for process in self._processes]
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        for process in self._processes:
            while process.stdout.readline().strip() != "ended":
                pass
        return said

    def _tell(self, process, words):
        print(json.dumps(words), file=process.stdin, flush=True)
        return int(process.stdout.readline())


def main():
    """Fork a step for each line."""
    from bridge import step

    while line := _line():
        name, *flags = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.environ["BRIDGE_STEP"] = name
            print(os.getpid(), flush=True)
            _line()
            step.main(flags)
        os.waitpid(pid, 0)
        print("ended", flush=True)


def _line():
    """One line, and not a byte more: a child reads the next one."""
    found = b""
    while not found.endswith(b"\n"):
        more = os.read(0, 1)
        if not more:
            return b""
        found += more
    return found


if __name__ == "__main__":
    main()
