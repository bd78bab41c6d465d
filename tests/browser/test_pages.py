"""The pages, in a real browser on a real `bridgectl local`."""

import re
from contextlib import closing

import pytest
from playwright.sync_api import expect

from tests.browser.looking import PHONE, THEMES, Eyes
from tests.browser.world import ACT_TOKEN, READ_TOKEN

RETRY, RERUN, RETRY_STEP = "Retry what failed", "Run all again", "Retry this step"
FINISHED = ("lint", "build", "docs")
FAILED_BUILDS = {"lint": 1, "build": 1, "test": 1, "docs": 1, "package": 0}


def counted(world, run):
    return {step: len(builds) for step, builds in world.builds(run).items()}


def a_failed_run(world, commit, branch):
    world.say(f"broken-{commit[0]}")
    run = world.push(commit, branch=branch)
    assert world.closed(run)["verdict"] == "failed"
    assert counted(world, run) == FAILED_BUILDS
    return run


def stays(page):
    """Mark the document; `is_same` says whether it is still the one."""
    page.evaluate("window.isTheSame = true")


def is_same(page):
    return page.evaluate("window.isTheSame === true")


def told(page, text):
    """What was said after a button was pressed."""
    return page.locator(".told").filter(has_text=re.compile(text))


def state(page):
    return page.locator(".headline .state")


def pages_of(world):
    """Each kind of page, by what it is called in a failure."""
    run = f"/runs/{world.failed}"
    return {
        "list": "/",
        "list-filtered": "/?verdict=failed&search=round",
        "list-empty": "/?search=there-is-nothing-like-that",
        "run": run,
        "run-succeeded": f"/runs/{world.succeeded}",
        "log": f"{run}/steps/test/log",
        "projects": "/projects",
        "project": "/projects/acme/widgets",
        "signin": "/signin",
        "not-found": "/runs/there-is-none",
    }


def test_what_failed_is_retried_from_its_page_and_goes_green_before_ones_eyes(world, eyes):
    run = a_failed_run(world, "f" * 40, "flaky")
    before = world.get(f"/runs/{run}")
    page = eyes.page
    eyes.sign_in(ACT_TOKEN)

    eyes.goto("/")
    expect(page.get_by_role("heading", name="Runs", exact=True)).to_be_visible()
    everything = page.locator("table.runs tbody tr")
    expect(everything.filter(has_text="corners")).to_have_count(1)
    page.get_by_label("State", exact=True).select_option("failed")
    expect(everything.filter(has_text="corners")).to_have_count(0)
    page.get_by_role("searchbox").fill("flaky")
    expect(everything).to_have_count(1)
    assert "verdict=failed" in page.url
    everything.get_by_role("link").first.click()

    expect(page.get_by_role("heading", level=1)).to_contain_text("flaky")
    expect(state(page)).to_have_text("failed")
    expect(page.get_by_role("region", name="Log of build 1 of test")).to_contain_text("test 3 failed")
    world.unsay("broken-f")
    world.unsay("enough")
    try:
        page.get_by_role("button", name=RETRY).click()
        expect(told(page, "retry: attempt 2 begins now")).to_be_visible()
        stays(page)
        log = page.get_by_role("region", name="Log of build 2 of test")
        expect(log).to_contain_text("test 2 ok")
        expect(log).not_to_contain_text("test 3 ok")
        expect(state(page)).to_have_text("running")
        world.say("line-3")
        expect(log).to_contain_text("test 3 ok")
        for theme in THEMES:
            eyes.in_theme(theme)
            assert not eyes.flaws() + eyes.words_outside()
            eyes.keep(f"run-following-{theme}")
    finally:
        world.say("enough")
    expect(state(page)).to_have_text("succeeded")
    assert is_same(page)

    after = world.closed(run, 2)
    assert after["verdict"] == "succeeded"
    assert after["sha"] == "f" * 40
    assert counted(world, run) == {**FAILED_BUILDS, "test": 2, "package": 1}
    for old, new in zip(before["steps"], after["steps"], strict=True):
        if old["name"] in FINISHED:
            assert new["builds"] == old["builds"]
    assert [(act["who"], act["source"]) for act in after["acts"]] == [("ada", "page")]


def test_one_step_is_retried_alone(world, eyes):
    run = a_failed_run(world, "b" * 40, "one-step")
    world.unsay("broken-b")
    eyes.sign_in(ACT_TOKEN)
    eyes.goto(f"/runs/{run}")
    step = eyes.page.get_by_role("listitem").filter(has=eyes.page.get_by_role("heading", name="test", exact=True))
    step.get_by_role("button", name=RETRY_STEP).click()
    expect(told(eyes.page, "attempt 2 begins")).to_be_visible()
    ended = world.closed(run, 2)
    assert ended["attempts"][1]["only"] == ["test"]
    assert counted(world, run)["test"] == 2


def test_a_button_pressed_twice_is_one_act(world, eyes):
    run = a_failed_run(world, "c" * 40, "twice")
    world.unsay("broken-c")
    eyes.sign_in(ACT_TOKEN)
    eyes.goto(f"/runs/{run}")
    eyes.page.get_by_role("button", name=RETRY).dblclick()
    expect(told(eyes.page, "attempt 2|asked for already")).to_be_visible()
    ended = world.closed(run, 2)
    assert [act["kind"] for act in ended["acts"]] == ["retry"]
    assert len(ended["attempts"]) == 2


def test_a_new_run_appears_in_the_list_by_itself(world, eyes):
    eyes.goto("/")
    expect(eyes.page.locator("table.runs tbody tr").first).to_be_visible()
    stays(eyes.page)
    run = world.push("d" * 40, branch="appearing")
    row = eyes.page.locator("table.runs tbody tr").filter(has_text="appearing")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("succeeded")
    assert is_same(eyes.page)
    assert world.closed(run)["verdict"] == "succeeded"


@pytest.mark.parametrize("token", [None, READ_TOKEN], ids=["nobody", "a reader"])
def test_who_may_not_act_has_no_button_and_is_refused(world, eyes, token):
    if token:
        eyes.sign_in(token)
    eyes.goto(f"/runs/{world.failed}")
    expect(state(eyes.page)).to_have_text("failed")
    names = re.compile(f"{RETRY}|{RERUN}|{RETRY_STEP}|Cancel|Approve")
    expect(eyes.page.get_by_role("button", name=names)).to_have_count(0)
    before = world.get(f"/runs/{world.failed}")["acts"]
    eyes.goto("/signin")
    sealed = eyes.page.locator("main input[name=csrf]").input_value()
    for path in ("retry", "rerun", "cancel", "approve", "steps/test/retry"):
        answer = eyes.context.request.post(f"/runs/{world.failed}/{path}", form={"csrf": sealed}, max_redirects=0)
        assert answer.status == (403 if token else 401)
    assert world.get(f"/runs/{world.failed}")["acts"] == before


def test_by_the_keyboard_alone(world, eyes):
    run = a_failed_run(world, "e" * 40, "by-keyboard")
    world.unsay("broken-e")
    page, keys = eyes.page, eyes.page.keyboard
    eyes.goto("/")
    keys.press("Tab")
    expect(page.get_by_role("link", name=re.compile("Skip"))).to_be_focused()
    eyes.tab_to("link", "Sign in")
    keys.press("Enter")
    expect(page.get_by_label("Token")).to_be_focused()
    keys.type(ACT_TOKEN)
    keys.press("Enter")
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    eyes.tab_to("searchbox", "Search")
    keys.type("by-keyboard")
    expect(page.locator("table.runs tbody tr")).to_have_count(1)
    eyes.tab_to("link", page.locator("table.runs tbody th a").inner_text())
    keys.press("Enter")
    expect(state(page)).to_have_text("failed")
    eyes.tab_to("button", RETRY)
    keys.press("Enter")
    expect(told(page, "attempt 2 begins")).to_be_visible()
    expect(state(page)).to_have_text("succeeded")
    assert counted(world, run)["test"] == 2
    eyes.tab_to("button", "Sign out")
    keys.press("Enter")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_signing_in_leads_back_and_signing_out_takes_the_buttons_away(world, eyes):
    page = eyes.page
    eyes.goto(f"/runs/{world.failed}")
    page.get_by_role("link", name="Sign in").click()
    page.get_by_label("Token").fill("a-guess")
    eyes.excused.append("401")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("no token of this gateway")
    page.get_by_label("Token").fill(ACT_TOKEN)
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(re.compile(f"/runs/{world.failed}$"))
    expect(page.get_by_role("button", name=RETRY)).to_be_visible()
    (cookie,) = [one for one in eyes.context.cookies() if "session" in one["name"]]
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Lax")
    assert ACT_TOKEN not in cookie["value"]
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    eyes.goto(f"/runs/{world.failed}")
    expect(state(page)).to_have_text("failed")
    expect(page.get_by_role("button", name=RETRY)).to_have_count(0)


def test_a_page_of_another_site_presses_no_button(world, eyes):
    eyes.sign_in(ACT_TOKEN)
    eyes.goto("/signin")
    sealed = eyes.page.locator("main input[name=csrf]").input_value()
    before = world.get(f"/runs/{world.failed}")["acts"]
    eyes.excused.append("403")
    for seal in ("", sealed):
        eyes.page.goto("about:blank")
        eyes.page.set_content(
            f'<form method="post" action="{world.url}/runs/{world.failed}/retry">'
            f'<input type="hidden" name="csrf" value="{seal}"><button>Win</button></form>'
        )
        with eyes.page.expect_navigation() as navigation:
            eyes.page.get_by_role("button", name="Win").click()
        assert navigation.value.status in {401, 403}
    assert world.get(f"/runs/{world.failed}")["acts"] == before


def test_a_form_of_ours_without_its_seal_is_refused(world, eyes):
    eyes.sign_in(ACT_TOKEN)
    eyes.goto(f"/runs/{world.failed}")
    before = world.get(f"/runs/{world.failed}")["acts"]
    eyes.excused.append("403")
    button = eyes.page.get_by_role("button", name=RETRY)
    button.evaluate("(button) => button.form.elements.csrf.remove()")
    with eyes.page.expect_navigation() as navigation:
        button.click()
    assert navigation.value.status == 403
    assert world.get(f"/runs/{world.failed}")["acts"] == before


def test_without_script_everything_works_with_a_reload(world, browser):
    run = a_failed_run(world, "7" * 40, "no-script")
    world.unsay("broken-7")
    with closing(Eyes(browser, world.url, script=False)) as eyes:
        eyes.sign_in(ACT_TOKEN)
        eyes.goto("/")
        eyes.page.get_by_role("searchbox").fill("no-script")
        eyes.page.get_by_role("button", name="Show").click()
        eyes.page.locator("table.runs tbody th a").click()
        eyes.page.get_by_role("button", name=RETRY).click()
        expect(told(eyes.page, "attempt 2 begins")).to_be_visible()
        assert world.closed(run, 2)["verdict"] == "succeeded"
        eyes.page.reload()
        expect(state(eyes.page)).to_have_text("succeeded")
        eyes.saw_no_complaint()


@pytest.mark.parametrize("theme", THEMES)
def test_nothing_serious_is_in_the_way_of_anybody(world, eyes, theme):
    eyes.in_theme(theme)
    eyes.sign_in(ACT_TOKEN)
    eyes.excused.append("404")
    flaws = {}
    for name, path in pages_of(world).items():
        eyes.goto(path)
        expect(eyes.page.get_by_role("heading", level=1)).to_be_visible()
        if found := eyes.flaws() + eyes.words_outside():
            flaws[name] = found
        eyes.keep(f"{name}-{theme}")
    assert not flaws


def test_on_a_phone_nothing_is_wider_than_the_screen(world, browser):
    with closing(Eyes(browser, world.url, viewport=PHONE)) as eyes:
        eyes.sign_in(ACT_TOKEN)
        eyes.excused.append("404")
        wide = []
        for name, path in pages_of(world).items():
            eyes.goto(path)
            expect(eyes.page.get_by_role("heading", level=1)).to_be_visible()
            if eyes.scrolls_sideways():
                wide.append(name)
            eyes.keep(f"{name}-phone")
        assert not wide
        eyes.saw_no_complaint()


def test_a_theme_that_somebody_chose_stays(eyes):
    eyes.in_theme("light")
    eyes.goto("/")
    eyes.page.get_by_role("button", name="dark").click()
    expect(eyes.page.locator("html")).to_have_attribute("data-theme", "dark")
    eyes.goto("/projects")
    expect(eyes.page.locator("html")).to_have_attribute("data-theme", "dark")


def test_the_badge_is_a_picture_on_the_page_of_its_project(world, eyes):
    eyes.goto("/projects/acme/widgets")
    badge = eyes.page.get_by_role("img", name="Badge of checks")
    expect(badge).to_be_visible()
    assert badge.evaluate("(image) => image.decode().then(() => image.naturalWidth)") > 50
