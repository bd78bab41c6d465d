"""Which revision a build is told, and when the git host is asked first."""

import pytest

from bridge.core.checkouts import depends_on_head, keeps_commit, moved, told
from bridge.core.events import Revision
from bridge.core.pipelines import Checkout

BOTH = Revision("c" * 40, "refs/heads/main")
OURS = "images.example.com:5000/ci/brigade-argo-bridge-sidecar:0.1.0"
BRIGADES = "brigadecore/git-sidecar:v1.5.0"


@pytest.mark.parametrize(
    ("image", "ours"),
    [
        (OURS, True),
        ("brigade-argo-bridge-sidecar", True),
        (f"brigade-argo-bridge-sidecar@sha256:{'a' * 64}", True),
        (f"x/brigade-argo-bridge-sidecar:1@sha256:{'a' * 64}", True),
        (BRIGADES, False),
        ("brigade-argo-bridge-sidecar/other", False),
        ("not-brigade-argo-bridge-sidecar:1", False),
        ("", False),
    ],
)
def test_our_sidecar_is_known_by_its_name_wherever_it_comes_from(image, ours):
    assert keeps_commit(image) is ours


@pytest.mark.parametrize("checkout", [None, *Checkout])
@pytest.mark.parametrize("attempt", [1, 2])
def test_with_our_sidecar_both_fields_are_sent_and_nobody_is_asked(checkout, attempt):
    assert told(BOTH, checkout, sidecar=OURS) == BOTH
    assert not depends_on_head(BOTH, checkout, sidecar=OURS, attempt=attempt)


def test_with_brigades_own_the_first_attempt_sends_both_and_asks_nobody():
    assert told(BOTH, None, sidecar=BRIGADES) == BOTH
    assert not depends_on_head(BOTH, None, sidecar=BRIGADES, attempt=1)


def test_with_brigades_own_a_later_attempt_asks_first():
    assert told(BOTH, None, sidecar=BRIGADES) == BOTH
    assert depends_on_head(BOTH, None, sidecar=BRIGADES, attempt=2)


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_pipeline_may_say_what_is_built_instead(attempt):
    assert told(BOTH, Checkout.REF, sidecar=BRIGADES) == BOTH
    assert told(BOTH, Checkout.COMMIT, sidecar=BRIGADES) == Revision(BOTH.commit, "")
    assert not depends_on_head(BOTH, Checkout.REF, sidecar=BRIGADES, attempt=attempt)
    assert not depends_on_head(BOTH, Checkout.COMMIT, sidecar=BRIGADES, attempt=attempt)


def test_without_a_commit_there_is_always_a_ref():
    head = Revision("", "refs/heads/main")
    assert told(head, Checkout.COMMIT, sidecar=BRIGADES) == head


@pytest.mark.parametrize(
    ("revision", "sidecar"),
    [
        (Revision("", "refs/heads/main"), BRIGADES),
        (Revision("c" * 40, ""), BRIGADES),
        (Revision("c" * 40, "c" * 40), BRIGADES),
        (BOTH, ""),
    ],
    ids=["no commit", "no ref", "the ref is the commit", "nothing is fetched"],
)
def test_where_no_ref_can_lead_astray_nobody_is_asked(revision, sidecar):
    assert not depends_on_head(revision, None, sidecar=sidecar, attempt=2)


def test_a_ref_that_has_moved_or_is_gone_is_a_reason_with_remedies():
    assert moved(BOTH, {BOTH.commit, "d" * 40}) == ""
    there, gone = moved(BOTH, {"d" * 40}), moved(BOTH, ())
    assert "points at dddddddddddd now" in there
    assert "is not there any more" in gone
    for reason in (there, gone):
        assert BOTH.ref in reason
        assert "cccccccccccc" in reason
        assert "vcsSidecar" in reason
        assert "`checkout: commit`" in reason
