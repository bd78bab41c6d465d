"""`python -m tests.browser`: get what the tests in a browser need, before them, where its progress is seen."""

import sys

from tests.browser.chromium import NoBrowser, axe, chromium
from tests.cluster.building import say


def main() -> int:
    """Print where the browser is. Without one the tests say why they are skipped, or fail where they must not."""
    try:
        print(chromium())
        axe()
    except NoBrowser as reason:
        say(str(reason))
    return 0


if __name__ == "__main__":
    sys.exit(main())
