from bridge.errors import Misconfigured, Unavailable
from bridge.flows.mending import Mending


class Broken:
    """Records that cannot be read, and what mending them comes to."""

    def __init__(self, **comes):
        self.reasons = dict.fromkeys(comes, "no json")
        self.comes = comes
        self.tried = []
        self.mending = Mending(lambda: list(self.reasons.items()), self.mend)

    def mend(self, run):
        self.tried.append(run)
        found = self.comes[run]
        if isinstance(found, Exception):
            raise found
        if found:
            del self.reasons[run]
        return found


def test_what_can_be_mended_is_mended_and_what_cannot_is_tried_once():
    broken = Broken(damaged=True, newer=False, eventless=Misconfigured("no event"))
    for _ in range(3):
        broken.mending.pass_once()
    assert sorted(broken.tried) == ["damaged", "eventless", "newer"]


def test_what_is_broken_in_another_way_is_tried_again():
    broken = Broken(newer=False)
    broken.mending.pass_once()
    broken.reasons["newer"] = "something else"
    broken.mending.pass_once()
    assert broken.tried == ["newer", "newer"]


def test_what_cannot_be_mended_now_is_tried_until_it_can():
    broken = Broken(busy=Unavailable("locked"), other=True)
    broken.mending.pass_once()
    assert sorted(broken.tried) == ["busy", "other"]
    broken.comes["busy"] = True
    broken.mending.pass_once()
    assert not broken.reasons
