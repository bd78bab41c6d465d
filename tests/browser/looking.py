"""One person at a browser: opens pages, signs in, presses keys; and hears what pages complain about."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, expect

PATIENCE_MS = 120_000
"""How long a page may take to show something. The machine may be busy."""
DESK = {"width": 1280, "height": 800}
PHONE = {"width": 360, "height": 740}
THEMES = ("light", "dark")
_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) => {
  console.error("CSP refused " + event.violatedDirective + " " + event.blockedURI + " " + event.sourceFile);
});
"""
_TABS = 200

expect.set_options(timeout=PATIENCE_MS)


@dataclass
class Eyes:
    """A browser of one person, with cookies of its own."""

    browser: Browser
    url: str
    axe_source: str = field(repr=False, default="")
    viewport: dict = field(default_factory=lambda: dict(DESK))
    script: bool = True
    complaints: list = field(default_factory=list)
    excused: list = field(default_factory=list)
    """Pieces of complaints that a test means to hear."""

    def __post_init__(self):
        self.context: BrowserContext = self.browser.new_context(
            viewport=self.viewport, base_url=self.url, java_script_enabled=self.script
        )
        self.context.set_default_timeout(PATIENCE_MS)
        self.context.add_init_script(_VIOLATIONS)
        self.page: Page = self.context.new_page()
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("crash", lambda _page: self.complaints.append("the page crashed"))

    def _said(self, message):
        if message.type in {"error", "warning"}:
            self.complaints.append(f"{message.type}: {message.text} ({message.location.get('url', '')})")

    def close(self):
        self.context.close()

    def saw_no_complaint(self):
        left = [one for one in self.complaints if not any(piece in one for piece in self.excused)]
        assert not left, "\n".join(left)

    def goto(self, path):
        """Open a page and answer its status."""
        answer = self.page.goto(path)
        assert answer is not None
        return answer.status

    def sign_in(self, token):
        self.goto("/signin")
        self.page.get_by_label("Token").fill(token)
        self.page.get_by_role("button", name="Sign in").click()
        expect(self.page.get_by_role("button", name="Sign out")).to_be_visible()

    def tab_to(self, role, name):
        """Press Tab until this has the focus, as somebody without a mouse does."""
        wanted = self.page.get_by_role(role, name=name, exact=True)
        expect(wanted.first).to_be_visible()
        for _ in range(_TABS):
            self.page.keyboard.press("Tab")
            if wanted.evaluate_all("(all) => all.includes(document.activeElement)"):
                return
        raise AssertionError(f"no number of tabs leads to the {role} {name}")

    def in_theme(self, theme):
        self.page.emulate_media(color_scheme=theme, reduced_motion="reduce")

    def flaws(self):
        """What axe-core finds serious or critical on this page."""
        self.page.evaluate(f"{self.axe_source};undefined")
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        assert found["passes"], "axe-core looked at nothing"
        return [
            f"{one['id']} ({one['impact']}): {one['help']}: {[node['html'][:200] for node in one['nodes'][:3]]}"
            for one in found["violations"]
            if one["impact"] in {"serious", "critical"}
        ]

    def scrolls_sideways(self):
        return self.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")

    def words_outside(self):
        """The words of a picture that do not fit into their box."""
        return self.page.evaluate(
            """[...document.querySelectorAll("svg .box")].flatMap((box) => {
              const frame = box.querySelector("rect").getBoundingClientRect();
              return [...box.querySelectorAll("text")]
                .filter((text) => text.getBoundingClientRect().right > frame.right - 4)
                .map((text) => text.textContent);
            })"""
        )

    def keep(self, name):
        """Pictures of this page, as it is on the screen and whole, in the folder of BRIDGE_SCREENSHOTS if there is one."""
        if folder := os.environ.get("BRIDGE_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=Path(folder) / f"{name}.png")
            self.page.screenshot(path=Path(folder) / f"{name}-whole.png", full_page=True)
