"""HTML as a tree, for tests that look at what a page says and not at how it is written."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = frozenset({"meta", "link", "input", "img", "br", "hr", "wbr"})
SVG_LEAVES = frozenset({"path", "rect"})


@dataclass
class Element:
    """One element; text is kept as children that are str."""

    tag: str
    attributes: dict
    parent: "Element | None" = None
    children: list = field(default_factory=list)

    def __getitem__(self, name):
        return self.attributes[name]

    def get(self, name, default=None):
        return self.attributes.get(name, default)

    @property
    def classes(self):
        return (self.get("class") or "").split()

    @property
    def text(self):
        return "".join(one if isinstance(one, str) else one.text for one in self.children)

    @property
    def words(self):
        return " ".join(self.text.split())

    def all(self, tag="", *, cls="", **attributes):
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        found = []
        for one in self.children:
            if isinstance(one, str):
                continue
            if (
                (not tag or one.tag == tag)
                and (not cls or cls in one.classes)
                and all(one.attributes.get(name) == value for name, value in wanted.items())
            ):
                found.append(one)
            found += one.all(tag, cls=cls, **attributes)
        return found

    def one(self, tag="", **attributes):
        (found,) = self.all(tag, **attributes)
        return found


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.here = self.root

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        element = Element(tag, dict(attrs), self.here)
        self.here.children.append(element)
        if tag not in VOID:
            self.here = element

    def handle_startendtag(self, tag, attrs):
        assert tag in SVG_LEAVES | VOID, f"<{tag}/> does not close itself"
        self.here.children.append(Element(tag, dict(attrs), self.here))

    def handle_endtag(self, tag):
        assert self.here.tag == tag, f"</{tag}> where <{self.here.tag}> is open"
        self.here = self.here.parent

    def handle_data(self, data):
        self.here.children.append(data)


def parsed(text):
    """The tree of a page or a piece of one; an AssertionError if its elements do not nest."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert reader.here is reader.root, f"<{reader.here.tag}> is never closed"
    return reader.root
