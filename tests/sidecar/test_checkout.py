"""The sidecar's program against real git repositories, over HTTP and as files."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.git_server import commit, git, git_host

PROGRAM = Path(__file__).parents[2] / "sidecar" / "checkout"
TOKEN = "t0ken-that-nobody-may-see"
SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]


@pytest.fixture
def host(tmp_path):
    with git_host(tmp_path / "host") as host:
        yield host


@pytest.fixture
def tree(tmp_path, host):
    """A work tree whose pushes go to `widgets.git`, with one commit on main."""
    host.make("widgets.git")
    return work_tree(tmp_path, host, "widgets.git")


def work_tree(tmp_path, host, name):
    tree = tmp_path / f"tree of {name}"
    tree.mkdir()
    git(tree, "init", "-q", "-b", "main")
    git(tree, "remote", "add", "origin", str(host.folder / name))
    commit(tree, "first")
    git(tree, "push", "-q", "origin", "main")
    return tree


def push(tree, *refspecs):
    git(tree, "push", "-q", "--force", "origin", *refspecs)


class Checkout:
    """A run of the program, ended."""

    def __init__(self, workspace, url, *, shell="sh", **told):
        self.workspace = workspace
        environment = {
            "PATH": os.environ["PATH"],
            "BRIGADE_REMOTE_URL": url,
            "BRIGADE_WORKSPACE": str(workspace),
            "CHECKOUT_PAUSE_SECONDS": "0",
            "TMPDIR": str(workspace.parent),
            **{f"BRIGADE_{name.upper()}": value for name, value in told.items() if name.islower()},
            **{name: value for name, value in told.items() if name.isupper()},
        }
        argv = ["busybox", "sh"] if shell == "busybox" else [shell]
        done = subprocess.run(
            [*argv, str(PROGRAM)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            cwd=workspace.parent,
        )
        self.code = done.returncode
        self.said = done.stdout + done.stderr

    def commit(self, what="HEAD"):
        return git(self.workspace, "rev-parse", f"{what}^{{commit}}")

    def everything(self):
        """All that is in the workspace, byte for byte."""
        return b"".join(path.read_bytes() for path in self.workspace.rglob("*") if path.is_file())


@pytest.fixture
def checked_out(tmp_path, host):
    def checked_out(*, name="widgets.git", url="", **told):
        place = tmp_path / "place"
        place.mkdir(exist_ok=True)
        return Checkout(place / "src", url or f"{host.url}/{name}", **told)

    return checked_out


@pytest.mark.parametrize("shell", SHELLS)
def test_the_commit_is_checked_out_although_the_branch_went_on(tree, checked_out, shell):
    wanted = git(tree, "rev-parse", "HEAD")
    commit(tree, "later")
    push(tree, "main")
    done = checked_out(commit_id=wanted, commit_ref="refs/heads/main", shell=shell)
    assert done.code == 0, done.said
    assert done.commit() == done.commit("refs/heads/main") == wanted
    assert (done.workspace / "file").read_text() == "first"
    assert git(done.workspace, "status", "--porcelain") == ""


def test_a_branch_that_was_pushed_anew_still_gives_the_commit(tree, checked_out):
    wanted = commit(tree, "second")
    push(tree, "main")
    git(tree, "reset", "-q", "--hard", "HEAD^")
    new = commit(tree, "another second")
    push(tree, "main")
    done = checked_out(commit_id=wanted, commit_ref="refs/heads/main")
    assert done.code == 0, done.said
    assert done.commit() == done.commit("refs/heads/main") == wanted
    assert new in done.said


def test_a_host_that_hands_out_only_what_refs_hold_still_gives_a_commit_of_another_branch(
    tree, tmp_path, checked_out
):
    with git_host(tmp_path / "host", protocols=False) as old:
        git(tree, "checkout", "-q", "-b", "other")
        wanted = commit(tree, "elsewhere")
        push(tree, "other")
        git(tree, "checkout", "-q", "main")
        done = checked_out(url=f"{old.url}/widgets.git", commit_id=wanted, commit_ref="refs/heads/main")
    assert done.code == 0, done.said
    assert done.commit() == done.commit("refs/heads/main") == wanted


def test_a_branch_that_was_deleted_still_gives_the_commit(tree, checked_out):
    git(tree, "checkout", "-q", "-b", "topic")
    wanted = commit(tree, "of a topic")
    push(tree, "topic")
    git(tree, "push", "-q", "origin", ":topic")
    for ref in ("refs/heads/topic", "topic"):
        done = checked_out(commit_id=wanted, commit_ref=ref)
        assert done.code == 0, done.said
        assert done.commit() == done.commit("refs/heads/topic") == wanted


def test_a_pull_request_is_checked_out_at_the_commit(tree, checked_out):
    wanted = commit(tree, "of a pull request")
    push(tree, "HEAD:refs/pull/7/head")
    commit(tree, "synchronized")
    push(tree, "HEAD:refs/pull/7/head")
    done = checked_out(commit_id=wanted, commit_ref="refs/pull/7/head")
    assert done.code == 0, done.said
    assert done.commit() == done.commit("refs/pull/7/head") == wanted


@pytest.mark.parametrize("ref", ["refs/tags/v1", "v1"])
def test_a_tag_is_checked_out_by_its_commit_or_its_own_id(tree, checked_out, ref):
    git(tree, "tag", "-a", "-m", "one", "v1")
    push(tree, "v1")
    wanted = git(tree, "rev-parse", "v1^{commit}")
    for given in (wanted, git(tree, "rev-parse", "v1")):
        done = checked_out(commit_id=given, commit_ref=ref)
        assert done.code == 0, done.said
        assert done.commit() == done.commit("refs/tags/v1") == wanted
    # It is what it was: the tag itself, not only its commit.
    assert git(done.workspace, "cat-file", "-t", "refs/tags/v1") == "tag"


def test_without_a_commit_the_head_of_the_ref_is_built_as_by_brigade(tree, checked_out):
    head = git(tree, "rev-parse", "main")
    for ref, branch in (("refs/heads/main", "HEAD"), ("main", "main"), ("", "HEAD"), (head, "HEAD")):
        done = checked_out(commit_ref=ref)
        assert done.code == 0, done.said
        assert done.commit() == head
        assert git(done.workspace, "rev-parse", "--abbrev-ref", "HEAD") == branch


def test_a_commit_alone_is_checked_out(tree, checked_out):
    wanted = git(tree, "rev-parse", "HEAD")
    commit(tree, "later")
    push(tree, "main")
    assert checked_out(commit_id=wanted).commit() == wanted


def test_a_short_id_and_a_name_in_place_of_an_id_are_understood(tree, checked_out):
    wanted = git(tree, "rev-parse", "HEAD")
    commit(tree, "later")
    push(tree, "main")
    assert checked_out(commit_id=wanted[:9], commit_ref="refs/heads/main").commit() == wanted
    assert checked_out(commit_id="main").commit() == git(tree, "rev-parse", "HEAD")


def test_a_commit_that_is_nowhere_is_an_error_that_names_it_and_where_the_branch_is(tree, checked_out):
    done = checked_out(commit_id="1" * 40, commit_ref="refs/heads/main")
    assert done.code == 1
    assert f"commit {'1' * 40} is not in" in done.said
    assert git(tree, "rev-parse", "HEAD") in done.said


@pytest.mark.parametrize(
    "ref", ["refs/heads/nowhere", "nowhere", "refs/heads/a:refs/heads/b", "-x", "refs/../x", "a b", "*"]
)
def test_a_ref_that_is_nowhere_or_none_is_an_error(tree, checked_out, ref):
    done = checked_out(commit_ref=ref)
    assert done.code == 1, done.said
    assert "checkout: " in done.said


def test_it_can_be_done_again_in_the_same_place_after_it_was_killed(tree, checked_out):
    wanted = git(tree, "rev-parse", "HEAD")
    assert checked_out(commit_ref="refs/heads/main").code == 0
    commit(tree, "later")
    push(tree, "main")
    place = checked_out(commit_ref="refs/heads/main").workspace
    (place / ".git" / "index.lock").touch()
    (place / "file").write_text("half written")
    done = checked_out(commit_id=wanted, commit_ref="refs/heads/main")
    assert done.code == 0, done.said
    assert (place / "file").read_text() == "first"


def test_a_host_that_is_away_for_a_moment_is_asked_again(tree, host, checked_out):
    host.away = 2
    done = checked_out(commit_ref="refs/heads/main")
    assert done.code == 0, done.said
    assert "try 2 of 5" in done.said


class Private:
    """A host that wants a password, with a repository that has a submodule."""

    def __init__(self, tmp_path, host):
        for name in ("library.git", "widgets.git"):
            host.make(name)
        work_tree(tmp_path, host, "library.git")
        self.tree = work_tree(tmp_path, host, "widgets.git")
        git(self.tree, "submodule", "-q", "add", str(host.folder / "library.git"), "library")
        git(self.tree, "config", "-f", ".gitmodules", "submodule.library.url", "../library.git")
        self.wanted = commit(self.tree, "with a library")
        push(self.tree, "main")
        host.password = TOKEN


@pytest.fixture
def private(tmp_path, host):
    return Private(tmp_path, host)


def test_submodules_come_along_if_that_is_asked_for(private, host, checked_out):
    host.password = ""
    done = checked_out(commit_ref="refs/heads/main")
    assert [*(done.workspace / "library").iterdir()] == []
    done = checked_out(commit_ref="refs/heads/main", submodules="true")
    assert done.code == 0, done.said
    assert (done.workspace / "library" / "file").read_text() == "first"


def test_the_token_opens_a_private_repository_and_its_submodules_and_is_seen_nowhere(private, host, checked_out):
    done = checked_out(
        commit_id=private.wanted, commit_ref="refs/heads/main", submodules="true", repo_auth_token=TOKEN
    )
    assert done.code == 0, done.said
    assert (done.workspace / "library" / "file").read_text() == "first"
    assert TOKEN not in done.said
    assert TOKEN.encode() not in done.everything()
    # What was private while it ran is gone.
    assert [path.name for path in done.workspace.parent.iterdir()] == ["src"]


def test_a_wrong_token_is_an_error_that_does_not_quote_it(private, host, checked_out):
    done = checked_out(commit_ref="refs/heads/main", repo_auth_token="wr0ng-one", CHECKOUT_TRIES="1")
    assert done.code == 1
    assert "wr0ng-one" not in done.said
    assert b"wr0ng-one" not in (done.everything() if done.workspace.exists() else b"")


def test_the_token_goes_to_no_other_host(private, tmp_path, host, checked_out):
    with git_host(tmp_path / "another", password="another's") as other:
        other.make("library.git")
        git(private.tree, "config", "-f", ".gitmodules", "submodule.library.url", f"{other.url}/library.git")
        commit(private.tree, "a library from elsewhere")
        push(private.tree, "main")
        done = checked_out(
            commit_ref="refs/heads/main", submodules="true", repo_auth_token=TOKEN, CHECKOUT_TRIES="1"
        )
        assert done.code == 1
        assert other.asked
        assert set(other.authorizations) == {""}


@pytest.mark.parametrize("user", ["me:t0ken-that-nobody-may-see", "me"])
def test_a_user_in_the_url_is_used_and_stored_nowhere(private, host, checked_out, user):
    url = f"http://{user}@127.0.0.1:{host.port}/widgets.git"
    done = checked_out(url=url, commit_ref="refs/heads/main", submodules="true", repo_auth_token=TOKEN)
    assert done.code == 0, done.said
    assert TOKEN not in done.said
    assert TOKEN.encode() not in done.everything()


def test_the_ssh_key_is_used_and_gone_afterwards(tree, host, tmp_path, checked_out):
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    seen = tmp_path / "seen"
    ssh = bin_folder / "ssh"
    # In place of ssh: it notes its key, and is the other side itself.
    ssh.write_text(
        f'#!/bin/sh\nwhile [ "$1" != -i ]; do shift; done\nls -l "$2" >> {seen}\ncat "$2" "$2-cert.pub" >> {seen}\n'
        'while [ "$#" -gt 1 ]; do shift; done\nexec sh -c "$1"\n'
    )
    ssh.chmod(0o755)
    done = checked_out(
        url=f"git@127.0.0.1:{host.folder}/widgets.git",
        commit_ref="refs/heads/main",
        repo_key="-----BEGIN KEY-----$secret$-----END KEY-----$",
        repo_ssh_cert="certificate$of it",
        PATH=f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
    )
    assert done.code == 0, done.said
    assert "-----BEGIN KEY-----\nsecret\n-----END KEY-----\n" in seen.read_text()
    assert "certificate\nof it\n" in seen.read_text()
    assert seen.read_text().startswith("-rw-------")
    assert "secret" not in done.said
    assert b"secret" not in done.everything()
    assert [path.name for path in done.workspace.parent.iterdir()] == ["src"]


def test_without_a_repository_it_says_what_is_missing(checked_out, tmp_path):
    done = Checkout(tmp_path / "src", "", commit_ref="main")
    assert done.code == 1
    assert "BRIGADE_REMOTE_URL" in done.said
