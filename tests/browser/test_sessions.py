"""Signing in where nobody reads without identity, as in a cluster: the gateway over fakes, in a real browser."""

import re
from contextlib import closing

import pytest
from playwright.sync_api import expect

from tests.browser.looking import Eyes
from tests.served import served
from tests.web.test_api import a_running
from tests.web.worlds import a_world

TOKEN = "grace-may-read"


@pytest.fixture
def world():
    known = a_world(loopback_only=False, read_tokens=(f"grace={TOKEN}",), session_seconds=3600)
    known.runs.add(a_running())
    return known


@pytest.fixture
def eyes(browser, world):
    with served(world.app) as url, closing(Eyes(browser, url)) as looking:
        # What a browser says of a page that is answered by 401 is what these tests are about.
        looking.excused.append("401")
        yield looking
        looking.saw_no_complaint()


def test_a_link_from_elsewhere_leads_through_the_sign_in_to_its_page(eyes):
    assert eyes.goto("/runs/push-r1?from=a-status") == 401
    expect(eyes.page.get_by_role("heading", name="Sign in")).to_be_visible()
    eyes.page.get_by_label("Token").fill(TOKEN)
    eyes.page.keyboard.press("Enter")
    expect(eyes.page.locator(".headline")).to_be_visible()
    expect(eyes.page).to_have_url(re.compile(r"/runs/push-r1\?from=a-status$"))
    expect(eyes.page.get_by_text("grace", exact=True)).to_be_visible()


def test_a_page_whose_session_ends_while_it_is_open_asks_again_and_comes_back(eyes, world):
    eyes.sign_in(TOKEN)
    eyes.goto("/?search=push")
    rows = eyes.page.locator("table.runs tbody tr")
    expect(rows).to_have_count(1)
    world.clock.sleep(3601)
    expect(eyes.page.get_by_role("heading", name="Sign in")).to_be_visible()
    eyes.page.get_by_label("Token").fill(TOKEN)
    eyes.page.get_by_role("button", name="Sign in").click()
    expect(rows).to_have_count(1)
    expect(eyes.page).to_have_url(re.compile(r"/\?search=push$"))
