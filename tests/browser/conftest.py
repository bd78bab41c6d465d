"""A browser, and a real `bridgectl local` to look at with it."""

import contextlib
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.chromium import ARGUMENTS, NoBrowser, axe, chromium
from tests.browser.looking import Eyes
from tests.browser.world import World, built

TEST_SECONDS = 600
"""The first one may have to wait for what Debian and npm bring."""


def pytest_collection_modifyitems(items):
    """Mark them."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(TEST_SECONDS, func_only=True))


@pytest.fixture(scope="session")
def found(pytestconfig) -> tuple[str, str]:
    """Where the browser is, and axe-core's source."""
    capturing = pytestconfig.pluginmanager.getplugin("capturemanager")
    try:
        with capturing.global_and_fixture_disabled() if capturing else contextlib.nullcontext():
            return chromium(), axe()
    except NoBrowser as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def browser(found) -> Browser:
    """One for the tests of a file; later ones may have event loops of their own again."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found[0], args=list(ARGUMENTS), timeout=120_000)
        yield started
        started.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    """A project with some history, served by `bridgectl local`."""
    with built(tmp_path_factory.mktemp("browser")) as served:
        yield served


@pytest.fixture
def eyes(browser, found, world) -> Eyes:
    """Somebody who looks; whatever a page complains about meanwhile fails the test."""
    with contextlib.closing(Eyes(browser, world.url, axe_source=found[1])) as looking:
        yield looking
        looking.saw_no_complaint()
