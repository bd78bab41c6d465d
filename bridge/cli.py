"""The command `bridgectl`. Only this module is imported before it is known what to do."""

import os
import sys
from pathlib import Path
from typing import NoReturn

_REPLACED = {
    ("brig", "run"): "bridge.step",
    ("exit",): "bridge.exiting",
}
"""Commands that are programs of their own: they run for every step and have to be light."""


def main() -> NoReturn:
    """Do what `sys.argv` asks for and exit; the codes are in `bridgectl --help`."""
    arguments = sys.argv[1:]
    for command, module in _REPLACED.items():
        if tuple(arguments[: len(command)]) == command:
            _replace(module, arguments[len(command) :])
    from bridge.commands import run  # after the above, because typer and what it needs take a while

    sys.exit(run(arguments))


def _replace(module: str, arguments: list[str]) -> NoReturn:
    # -P: a folder `bridge` where somebody happens to stand is not our package; PYTHONPATH: this one is.
    ours = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, [ours, os.environ.get("PYTHONPATH", "")]))
    argv = [sys.executable, "-P", "-m", module, *arguments]
    os.execve(sys.executable, argv, {**os.environ, "PYTHONPATH": path})  # noqa: S606 - by argv, no shell


if __name__ == "__main__":
    main()
