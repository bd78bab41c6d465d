"""`python -m tests.invariants.seek [NAME…]`: look for histories in which a drop is noticed, the shortest that can be found.

Without names: for all that have none, or whose history does not show it any more.
"""

import sys

from hypothesis import HealthCheck, find, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from tests.invariants import drops
from tests.invariants.world import Operation, Violated, operations, play

EXAMPLES = 6000


def shows(name: str, history: list[Operation]) -> bool:
    """Whether something does not hold in this history without it, and all holds with it."""
    try:
        with drops.without(name):
            play(history)
    except Violated:
        pass
    else:
        return False
    try:
        play(history)
    except Violated as failed:
        print(f"{name}: with it as well: {failed}: {history}")
        return False
    return True


def sought(name: str) -> list[Operation] | None:
    """A history that shows it, made as short as it goes."""
    how = settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=False,
        suppress_health_check=list(HealthCheck),
    )
    histories = st.lists(operations(), min_size=1, max_size=25)
    try:
        return find(histories, lambda one: shows(name, [("deliver", 0), *one]), settings=how)
    except NoSuchExample:
        return None


def main() -> int:
    known = drops.histories()
    wanted = sys.argv[1:] or [name for name in drops.names() if name not in known or not shows(name, known[name])]
    for name in wanted:
        found = sought(name)
        print(f"{name}: {found}", flush=True)
        if found is not None:
            known[name] = [("deliver", 0), *found]
            drops.keep(known)
    return 0


if __name__ == "__main__":
    sys.exit(main())
