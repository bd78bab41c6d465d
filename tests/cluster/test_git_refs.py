"""What a ref is at a git host now, asked of real git."""

import pytest

from bridge.cluster.git_refs import heads_of, https_url
from bridge.cluster.sources import GitSources
from bridge.core.events import Revision
from bridge.core.projects import Project
from bridge.errors import Unavailable
from tests.fakes import FakeProjects, some_event
from tests.git_server import commit, git, git_host

TOKEN = "t0ken-that-nobody-may-see"


@pytest.fixture(params=[True, False], ids=["protocol 2", "protocol 0"])
def host(request, tmp_path):
    with git_host(tmp_path / "host", protocols=request.param) as host:
        host.make("acme/widgets.git")
        yield host


@pytest.fixture
def tree(tmp_path, host):
    tree = tmp_path / "tree"
    tree.mkdir()
    git(tree, "init", "-q", "-b", "main")
    commit(tree, "first")
    git(tree, "remote", "add", "origin", str(host.folder / "acme/widgets.git"))
    git(tree, "push", "-q", "origin", "main", "HEAD:refs/pull/7/head", "HEAD:refs/heads/main2")
    return tree


def test_a_ref_is_what_it_points_at_full_or_bare(tree, host):
    head = git(tree, "rev-parse", "main")
    url = f"{host.url}/acme/widgets.git"
    for ref in ("refs/heads/main", "main", "refs/pull/7/head"):
        assert heads_of(url, ref) == {head}
    assert heads_of(url, "refs/heads/mai") == heads_of(url, "nowhere") == frozenset()
    moved = commit(tree, "second")
    git(tree, "push", "-q", "origin", "main")
    assert heads_of(url, "refs/heads/main") == {moved}


def test_a_tag_is_itself_and_what_it_stands_for(tree, host):
    git(tree, "tag", "-a", "-m", "one", "v1")
    git(tree, "push", "-q", "origin", "v1")
    wanted = {git(tree, "rev-parse", "v1"), git(tree, "rev-parse", "v1^{commit}")}
    assert len(wanted) == 2
    assert heads_of(f"{host.url}/acme/widgets.git", "refs/tags/v1") == wanted
    assert heads_of(f"{host.url}/acme/widgets.git", "v1") == wanted


def test_a_repository_that_was_renamed_is_found(tree, host):
    host.redirect = ("/acme/gadgets.git", "/acme/widgets.git")
    assert heads_of(f"{host.url}/acme/gadgets.git", "main") == {git(tree, "rev-parse", "main")}


def test_a_token_does_not_follow_a_repository_to_another_host(tree, host):
    host.redirect = ("/acme/gadgets.git", f"http://localhost:{host.port}/acme/widgets.git")
    assert heads_of(f"{host.url}/acme/gadgets.git", "main", token=TOKEN) == {git(tree, "rev-parse", "main")}
    first, *others = host.authorizations
    assert first
    assert set(others) == {""}


def test_a_private_repository_is_asked_with_the_token_or_the_urls_user(tree, host):
    host.password = TOKEN
    head = {git(tree, "rev-parse", "main")}
    assert heads_of(f"{host.url}/acme/widgets.git", "main", token=TOKEN) == head
    assert heads_of(f"http://me:{TOKEN}@127.0.0.1:{host.port}/acme/widgets.git", "main") == head
    with pytest.raises(Unavailable, match="answered 401") as refused:
        heads_of(f"http://me:wr0ng@127.0.0.1:{host.port}/acme/widgets.git", "main")
    assert "wr0ng" not in str(refused.value)


def test_a_host_that_is_away_or_is_none_of_gits_is_unavailable(tree, host):
    host.away = 1
    with pytest.raises(Unavailable, match="answered 503"):
        heads_of(f"{host.url}/acme/widgets.git", "main")
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1"):
        heads_of("http://127.0.0.1:1/acme/widgets.git", "main", token=TOKEN)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("https://host/acme/widgets.git", "https://host/acme/widgets.git"),
        ("https://host/acme/widgets/", "https://host/acme/widgets"),
        ("git@host:acme/widgets.git", "https://host/acme/widgets.git"),
        ("ssh://git@host:2222/acme/widgets.git", "https://host/acme/widgets.git"),
        ("git://host/acme/widgets.git", ""),
        ("/srv/widgets.git", ""),
        ("", ""),
    ],
)
def test_a_clone_url_says_where_a_repository_is_over_http(given, wanted):
    assert https_url(given) == wanted


def test_a_projects_token_goes_to_the_host_of_its_own_clone_url_alone(tree, host, tmp_path):
    url = f"{host.url}/acme/widgets.git"
    sources = GitSources(FakeProjects([Project("acme/widgets", "brigade-1", token=TOKEN, clone_url=url)]))
    event = some_event(revision=Revision("c" * 40, "refs/heads/main"))
    assert sources.heads(event) == {git(tree, "rev-parse", "main")}
    assert all(host.authorizations)
    # `localhost` is another host than `127.0.0.1`: what an event says is nobody's to send a token to.
    host.authorizations.clear()
    sources.heads(some_event(clone_url=f"http://localhost:{host.port}/acme/widgets.git"))
    assert set(host.authorizations) == {""}


def test_a_project_that_cannot_be_asked_over_http_says_so():
    sources = GitSources(FakeProjects([Project("acme/widgets", "brigade-1")]))
    with pytest.raises(Unavailable, match="set cloneURL"):
        sources.heads(some_event())
