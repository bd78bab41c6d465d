"""A browser as far as forms need one: it keeps cookies, and sends a form as the page has it."""

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class Form:
    """A form of a page."""

    action: str
    method: str
    fields: dict = field(default_factory=dict)


class _Forms(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        told = dict(attrs)
        if tag == "form":
            self.found.append(Form(told.get("action", ""), told.get("method", "get")))
        if tag == "input" and told.get("name") and self.found:
            self.found[-1].fields[told["name"]] = told.get("value", "")


def forms(text) -> list[Form]:
    """The forms of a page, in order."""
    return _Forms(text).found


def csrf(client, **more) -> str:
    """What the forms of our pages carry; the client has their cookies then."""
    found = forms(client.get("/signin", **more).text)
    return next(form.fields["csrf"] for form in found if "csrf" in form.fields)


def sign_in(client, token, *, following="", **more):
    """Sign in by the form; answers what the gateway answered."""
    sent = {"csrf": csrf(client, **more), "token": token, "next": following}
    return client.post("/signin", data=sent, **more)
