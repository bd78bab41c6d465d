"""`python -m bench [accept] [step] [reconcile]`: one `name: value` line for each figure."""

import sys
import tempfile
from pathlib import Path

from bench import accept, reconcile, step
from tests.cluster.holding import using

PIECES = {"accept": accept.figures, "step": step.figures, "reconcile": reconcile.figures}


def main(wanted: list[str]) -> int:
    """Measure what is wanted, all of it if nothing is said; 2 for what there is not."""
    unknown = [name for name in wanted if name not in PIECES]
    if unknown:
        print(f"bench: there is no {unknown[0]!r}: {', '.join(PIECES)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for name in wanted or PIECES:
            # A fresh API server each: what one leaves behind must not weigh on the next.
            with using(Path(folder) / name, own_crds=True) as control_plane:
                for figure, value in PIECES[name](control_plane, Path(folder)):
                    print(f"{figure}: {value}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
