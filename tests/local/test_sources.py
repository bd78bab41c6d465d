import multiprocessing
import os
import subprocess
from pathlib import Path

import pytest

from bridge.errors import Misconfigured, NotFound, Unavailable
from bridge.local import sources
from bridge.local.sources import Source, Wanted, git_environment, is_repository, make_source

WHO = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "commit.gpgsign=false")


def git(folder, *argv):
    ended = subprocess.run(["git", *WHO, "-C", str(folder), *argv], capture_output=True, text=True, check=True)
    return ended.stdout.strip()


def commit(folder, text, *, branch="main"):
    """A new commit on a branch, in which `a.txt` says `text`; its id."""
    git(folder, "checkout", "-q", "-B", branch)
    (folder / "a.txt").write_text(text)
    git(folder, "add", "a.txt")
    git(folder, "commit", "-q", "-m", text)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository"
    subprocess.run(["git", "init", "-q", "-b", "main", str(folder)], check=True)
    return folder


class Place:
    """Where sources are made."""

    def __init__(self, root):
        self.root = root
        self.said = []
        self.made = 0

    def make(self, source, commit="", ref="", *, run="r1", mirrors=None, **more) -> Source:
        self.made += 1
        run_folder = self.root / run
        run_folder.mkdir(exist_ok=True)
        return make_source(
            Wanted(str(source), commit, ref, **more),
            target=self.root / f"vcs{self.made}",
            mirrors=mirrors or self.root / "mirrors",
            pin=run_folder / ".revision",
            say=self.said.append,
        )


@pytest.fixture
def place(tmp_path):
    root = tmp_path / "place"
    root.mkdir()
    return Place(root)


def text_of(source):
    return Path(source.folder, "a.txt").read_text()


# Commits.


def test_the_commit_is_built_and_not_what_the_ref_points_at_now(repository, place):
    first = commit(repository, "one")
    commit(repository, "two")
    source = place.make(repository, first, "refs/heads/main")
    assert (source.commit, text_of(source)) == (first, "one")
    assert git(source.folder, "rev-parse", "HEAD") == first
    assert place.said == [f"checked out {first} of {repository}"]


def test_a_commit_that_was_rewritten_is_still_there_for_a_retry(repository, place):
    first = commit(repository, "one")
    place.make(repository, first)
    commit(repository, "other", branch="main")
    git(repository, "checkout", "-q", "--orphan", "fresh")
    git(repository, "commit", "-q", "-m", "fresh")
    git(repository, "branch", "-q", "-D", "main")
    git(repository, "reflog", "expire", "--expire=now", "--all")
    git(repository, "gc", "-q", "--prune=now")
    assert text_of(place.make(repository, first)) == "one"


def test_a_commit_that_is_known_needs_nobody_to_ask(repository, place):
    first = commit(repository, "one")
    place.make(repository, first)
    hidden = repository.with_name("hidden")
    repository.rename(hidden)
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    assert text_of(place.make(repository, first)) == "one"


def test_a_commit_of_a_pull_request_is_found(repository, place):
    commit(repository, "one")
    head = commit(repository, "of the fork", branch="topic")
    git(repository, "update-ref", "refs/pull/7/head", head)
    git(repository, "checkout", "-q", "main")
    git(repository, "branch", "-q", "-D", "topic")
    assert text_of(place.make(repository, head, "refs/pull/7/head")) == "of the fork"


def test_a_short_commit_is_resolved_anew(repository, place):
    first = commit(repository, "one")
    assert place.make(repository, first[:10]).commit == first


def test_a_checkout_is_whole_without_the_mirror(repository, place, tmp_path):
    first = commit(repository, "one")
    second = commit(repository, "two")
    source = place.make(repository, second)
    (place.root / "mirrors").rename(tmp_path / "away")
    assert git(source.folder, "log", "--format=%H").split() == [second, first]
    assert git(source.folder, "status", "--porcelain") == ""
    assert git(source.folder, "remote", "get-url", "origin") == str(repository)


@pytest.mark.parametrize("name", ["0" * 40, "no-such-branch", "--upload-pack=touch /tmp/x", "HEAD~99", "a\nb"])
def test_a_commit_that_is_not_there_is_not_found_and_nothing_is_built(repository, place, name):
    commit(repository, "one")
    with pytest.raises(NotFound, match="has no commit"):
        place.make(repository, name, "refs/heads/main")
    assert not (place.root / "vcs1").exists()


# Refs.


@pytest.mark.parametrize("ref", ["main", "refs/heads/main", ""])
def test_without_a_commit_the_head_of_the_ref_is_built(repository, place, ref):
    commit(repository, "one")
    head = commit(repository, "two")
    assert place.make(repository, "", ref).commit == head


def test_a_tag_is_built_as_its_commit(repository, place):
    head = commit(repository, "one")
    git(repository, "tag", "-a", "v1", "-m", "one")
    commit(repository, "two")
    assert place.make(repository, "", "v1").commit == head


def test_all_builds_of_a_run_without_a_commit_get_the_same(repository, place):
    first = commit(repository, "one")
    assert place.make(repository, "", "main").commit == first
    second = commit(repository, "two")
    assert place.make(repository, "", "main").commit == first
    assert place.make(repository, "", "main", run="r2").commit == second


def test_a_branch_that_became_a_folder_of_branches_can_be_fetched(repository, place):
    commit(repository, "one", branch="a")
    with pytest.raises(NotFound):
        place.make(repository, "0" * 40)
    git(repository, "checkout", "-q", "--detach")
    git(repository, "branch", "-q", "-D", "a")
    head = commit(repository, "two", branch="a/b")
    assert place.make(repository, head[:12]).commit == head


@pytest.mark.parametrize(
    "ref", ["refs/heads/gone", "--upload-pack=touch x", "main:refs/heads/x", "^main", "a b", "..", "a*"]
)
def test_a_ref_that_is_not_there_or_is_none_is_not_found(repository, place, ref):
    commit(repository, "one")
    with pytest.raises(NotFound, match="has no ref"):
        place.make(repository, "", ref)


# Where sources are.


def test_no_source_is_no_source(place):
    assert place.make("") == Source("")


def test_a_plain_folder_is_used_as_it_is(place, tmp_path):
    folder = tmp_path / "plain"
    folder.mkdir()
    assert place.make(folder, "c" * 40) == Source(str(folder))
    assert "plain folder" in place.said[0]


def test_a_plain_folder_is_copied_without_what_is_withheld(place, tmp_path):
    folder = tmp_path / "plain"
    (folder / "state" / "builds").mkdir(parents=True)
    (folder / "sub").mkdir()
    (folder / "project.yaml").write_text("secret")
    (folder / "sub" / "project.yaml").write_text("not the project's")
    (folder / "run.sh").write_text("#!")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("run.sh")
    os.mkfifo(folder / "pipe")
    source = place.make(folder, withheld=(folder / "state", folder / "project.yaml", tmp_path / "gone"))
    copied = Path(source.folder)
    assert copied != folder
    assert sorted(str(path.relative_to(copied)) for path in copied.rglob("*")) == [
        "link",
        "run.sh",
        "sub",
        "sub/project.yaml",
    ]
    assert os.access(copied / "run.sh", os.X_OK)
    assert (copied / "link").readlink() == Path("run.sh")


@pytest.mark.parametrize("source", ["/does/not/exist", "ext::sh -c 'touch /tmp/owned'"])
def test_a_source_that_is_not_there_names_the_remedy(place, source):
    with pytest.raises(NotFound, match=r"correct `repository` in its project\.yaml"):
        place.make(source)


def test_what_git_fetches_from_is_known_by_its_form(tmp_path, repository):
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "init", "-q", "--bare", str(bare)], check=True)
    for source in ["https://x/y", "ssh://git@x/y", "git@x:y/z.git", "file:///x", str(repository), str(bare)]:
        assert is_repository(source), source
    for source in [str(tmp_path), "ext::sh", "/a:b/c"]:
        assert not is_repository(source), source


def test_a_file_url_and_a_bare_repository_are_fetched(repository, place, tmp_path):
    head = commit(repository, "one")
    assert place.make(f"file://{repository}", head).commit == head
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(repository), str(bare)], check=True)
    assert place.make(bare, head).commit == head


def test_a_host_that_does_not_answer_is_unavailable_and_its_password_is_not_shown(place, monkeypatch):
    monkeypatch.setattr(sources, "_PAUSE_SECONDS", 0.0)
    with pytest.raises(Unavailable, match="check `repository` and the credentials") as raised:
        place.make("http://ada:password@127.0.0.1:9/x.git", "c" * 40)
    assert "password" not in str(raised.value)
    assert "password" not in "".join(place.said)
    assert sum("trying again" in line for line in place.said) == 2


def test_a_protocol_that_runs_commands_is_not_allowed(place, repository):
    head = commit(repository, "one")
    env = git_environment(os.environ, Wanted("x"))
    ended = subprocess.run(
        ["git", "ls-remote", f"ext::git-upload-pack {repository}"], env=env, capture_output=True, text=True
    )
    assert head not in ended.stdout
    assert "not allowed" in ended.stderr


def test_the_token_goes_only_to_the_host_of_the_source_and_only_over_https():
    env = git_environment({}, Wanted("https://git.example.com:8443/a/b.git", token="t"))
    values = {
        env[f"GIT_CONFIG_KEY_{n}"]: env[f"GIT_CONFIG_VALUE_{n}"] for n in range(int(env["GIT_CONFIG_COUNT"]))
    }
    assert (
        values["http.https://git.example.com:8443/.extraHeader"] == "Authorization: Basic eC1hY2Nlc3MtdG9rZW46dA=="
    )
    for source in ["http://git.example.com/a", "git@x:y", "https://ada@git.example.com/a", "/a"]:
        assert "Basic" not in str(git_environment({}, Wanted(source, token="t")))
    assert "secret" not in repr(Wanted("x", token="secret"))


def test_git_is_not_bound_to_the_repository_of_a_hook(repository, place, monkeypatch):
    head = commit(repository, "one")
    monkeypatch.setenv("GIT_DIR", "/somewhere/else")
    monkeypatch.setenv("GIT_INDEX_FILE", "/somewhere/index")
    assert place.make(repository, head).commit == head


def test_without_git_the_remedy_is_named(repository, place, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Misconfigured, match="install it"):
        place.make(repository, "c" * 40)


# At once, and after a death.


def _make(root, repository, commit, n):
    Place(root / f"place{n}").make(repository, commit, mirrors=root / "mirrors")


def test_many_at_once_fetch_the_same_repository(repository, tmp_path):
    commits = [commit(repository, f"text {n}") for n in range(4)]
    spawning = multiprocessing.get_context("spawn")
    many = []
    for n, one in enumerate(commits):
        (tmp_path / f"place{n}").mkdir()
        many.append(spawning.Process(target=_make, args=(tmp_path, repository, one, n)))
    for process in many:
        process.start()
    for process in many:
        process.join(60)
    assert [process.exitcode for process in many] == [0] * 4
    assert [(tmp_path / f"place{n}/vcs1/a.txt").read_text() for n in range(4)] == [f"text {n}" for n in range(4)]
    assert len(list((tmp_path / "mirrors").glob("*.git"))) == 1


def test_locks_that_a_killed_fetch_left_are_in_nobodys_way(repository, place):
    first = commit(repository, "one")
    place.make(repository, first)
    (mirror,) = (place.root / "mirrors").glob("*.git")
    second = commit(repository, "two")
    for name in ("packed-refs.lock", "config.lock", f"refs/bridge/{second}.lock", "refs/bridge/ref.lock"):
        (mirror / name).parent.mkdir(parents=True, exist_ok=True)
        (mirror / name).write_text("")
    assert text_of(place.make(repository, second)) == "two"
    assert text_of(place.make(repository, "", "main")) == "two"
