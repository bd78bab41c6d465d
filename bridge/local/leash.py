"""`python leash.py PARENT FOLDER COMMAND...`: become COMMAND in FOLDER, killed by the kernel when PARENT ends.

It waits until a byte comes on its standard input; if that ends without one, so does it. This is how nothing runs
before the engine has written down who it is.

A file of its own that imports nothing of bridge: it is run with `-I -S` and costs a few milliseconds. Between fork
and exec in the engine itself, which has threads, no Python may run.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
NOT_STARTED = 127
"""The exit code for a command that cannot be started, as a shell has it."""


def main(arguments: list[str]) -> None:
    """Replace this process. Strictly it is the end of PARENT's thread that kills, so that one must stay."""
    parent, folder, *command = arguments
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):
        os._exit(NOT_STARTED)
    if not os.read(0, 1):
        os._exit(NOT_STARTED)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    # Python ignores these two, and what is ignored stays so in the command.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.chdir(folder)
        os.execvp(command[0], command)  # noqa: S606 - by argv, no shell
    except (OSError, ValueError) as exc:
        print(f"brig: {command[0]} cannot be started: {exc}", file=sys.stderr)  # noqa: T201
        os._exit(NOT_STARTED)


if __name__ == "__main__":
    main(sys.argv[1:])
