"""`python -m tests.browser.pictures`: take the pictures in docs/images anew."""

import sys
import tempfile
from contextlib import closing
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from tests.browser.chromium import ARGUMENTS, chromium
from tests.browser.looking import THEMES, Eyes
from tests.browser.world import ACT_TOKEN, World, built

FOLDER = Path(__file__).parents[2] / "docs" / "images"
HISTORY = (
    ("0b7e93d1", 43, "Widgets know their weight", "grace"),
    ("f51c2a08", 44, "Draw widgets in colour", "linus"),
    ("62d8e4b7", 45, "Remove the old renderer", "ada"),
    ("9e03b5fc", 46, "Translate the docs", "grace"),
)
"""More pull requests; a commit that begins with f fails."""


def main() -> int:
    """Take them; 0."""
    with tempfile.TemporaryDirectory() as folder, built(Path(folder)) as world, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
        _fill(world)
        with closing(Eyes(browser, world.url)) as eyes:
            eyes.sign_in(ACT_TOKEN)
            for theme in THEMES:
                eyes.in_theme(theme)
                for name, path in _pages(world).items():
                    eyes.goto(path)
                    expect(eyes.page.get_by_role("heading", level=1)).to_be_visible()
                    FOLDER.mkdir(exist_ok=True)
                    eyes.page.screenshot(path=FOLDER / f"{name}-{theme}.png")
            eyes.saw_no_complaint()
        browser.close()
    return 0


def _pages(world: World) -> dict[str, str]:
    return {"list": "/", "run": f"/runs/{world.failed}", "project": "/projects/acme/widgets"}


def _fill(world: World) -> None:
    runs = [
        world.propose(commit * 5, number=number, title=title, sender=sender)
        for commit, number, title, sender in HISTORY
    ]
    runs.append(world.push("d94f016b" * 5, branch="main", sender="linus"))
    for run in runs:
        world.closed(run)
    # One that runs, for the list.
    world.unsay("enough")
    running = world.propose("57ac3e90" * 5, number=47, title="Fewer corners", sender="ada")
    world.until(running, lambda told: any(step["state"] == "running" for step in told["steps"]))


if __name__ == "__main__":
    sys.exit(main())
