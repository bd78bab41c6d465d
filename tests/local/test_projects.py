import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bridge.core.names import project_id
from bridge.errors import BadProject, Misconfigured, UnknownProject
from bridge.local.projects import FolderProjects

_ROOT = Path(__file__).parents[2]


def _write(folder, text):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "project.yaml"
    path.write_text(text)
    return path


def test_a_project_with_all_its_fields(tmp_path):
    folder = tmp_path / "widgets"
    _write(
        folder,
        """
name: acme/widgets
sharedSecret: one
secondSecret: {file: keys/second}
genericGatewaySecret: generic
github: {token: {file: keys/token}}
repository: https://git.example/acme/widgets.git
script: ci/brigade.js
defaultPipeline: true
allowedAuthors: [OWNER, CONTRIBUTOR]
secrets:
  plain: value
  fromFile: {file: keys/token}
allowPrivilegedJobs: true
allowHostMounts: true
""",
    )
    (folder / "keys").mkdir()
    (folder / "keys" / "second").write_bytes(b"two\r\n")
    (folder / "keys" / "token").write_text("token\n\n")
    project = FolderProjects(tmp_path).read("acme/widgets")
    assert project.name == "acme/widgets"
    assert project.id == project_id("acme/widgets")
    assert project.signing_secrets == ("one", "two")
    assert project.generic_secret == "generic"
    assert project.token == "token\n"
    assert project.source == project.clone_url == "https://git.example/acme/widgets.git"
    assert project.script == "ci/brigade.js"
    assert project.default_pipeline
    assert project.allowed_authors == ("OWNER", "CONTRIBUTOR")
    assert project.secrets == {"plain": "value", "fromFile": "token\n"}
    assert project.folder == str(folder)
    assert project.allow_privileged_jobs
    assert project.allow_host_mounts


def test_a_project_with_a_name_alone_is_safe(tmp_path):
    _write(tmp_path / "widgets", "name: acme/widgets\n")
    project = FolderProjects(tmp_path).read_by_id(project_id("acme/widgets"))
    assert project.source == project.folder == str(tmp_path / "widgets")
    assert project.clone_url == ""
    assert project.script == "brigade.js"
    assert project.allowed_authors == ("OWNER", "MEMBER", "COLLABORATOR")
    assert project.signing_secrets == ()
    assert project.generic_secret == project.token == ""
    assert not project.default_pipeline
    assert not project.allow_privileged_jobs
    assert not project.allow_host_mounts


@pytest.mark.parametrize(
    ("written", "source"),
    [
        ("source", "{folder}/source"),
        ("..", "{folder}/.."),
        ("/srv/git/widgets.git", "/srv/git/widgets.git"),
        ("git@git.example:acme/widgets.git", "git@git.example:acme/widgets.git"),
        ("ssh://git@git.example/acme/widgets.git", "ssh://git@git.example/acme/widgets.git"),
        ("file:///srv/git/widgets.git", "file:///srv/git/widgets.git"),
    ],
    ids=range(6),
)
def test_a_repository_is_a_url_or_a_path_from_the_folder(tmp_path, written, source):
    _write(tmp_path / "w", f"name: acme/widgets\nrepository: '{written}'\n")
    assert FolderProjects(tmp_path).read("acme/widgets").source == source.format(folder=tmp_path / "w")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "a project is a mapping; write at least `name: OWNER/REPOSITORY`"),
        ("- a", "a project is a mapping"),
        ("name: [", "line "),
        ("name: a\nname: b", "the key `name` is there twice"),
        ("script: a.js", "name: it is missing; write the repository's full name"),
        ("name: 7", "name: it is no repository's name"),
        ("name: a/../b", "name: it is no repository's name"),
        ("name: a b", "name: it is no repository's name"),
        ("name: a\nid: brigade-7", "id: it follows from the name; leave it out"),
        ("name: a\nsharedSecert: s", "sharedSecert: unknown field; did you mean `sharedSecret`?"),
        ("name: a\nshared_secret: s", "shared_secret: unknown field; did you mean `sharedSecret`?"),
        ("name: a\nzzz: s", "zzz: unknown field; known are name, sharedSecret"),
        ("name: a\ngithub: {tokn: s}", "github.tokn: unknown field; did you mean `token`?"),
        ("name: a\ngithub: token", "github: it must be a mapping"),
        ("name: a\nsharedSecret: 12345", "sharedSecret: it must be text, in quotes if it looks like a number"),
        ("name: a\nsharedSecret: {path: x}", "sharedSecret: it must be text"),
        ("name: a\nsharedSecret: {file: nowhere}", "sharedSecret: DIR/a/nowhere cannot be read (No such file"),
        ("name: a\nsharedSecret: {file: .}", "sharedSecret: DIR/a cannot be read (Is a directory)"),
        ('name: a\nsharedSecret: {file: "a\\0b"}', "cannot be read (no file has such a name)"),
        ("name: a\nsecrets: {A: 5}", "secrets.A: it must be text"),
        ("name: a\nsecrets: [A]", "secrets: it must be a mapping"),
        ("name: a\ndefaultPipeline: 'yes'", "defaultPipeline: it must be true or false"),
        ("name: a\nallowPrivilegedJobs: yes", "allowPrivilegedJobs: it must be true or false"),
        ("name: a\nallowedAuthors: OWNER", "allowedAuthors: it must be a list of OWNER, MEMBER"),
        (
            "name: a\nallowedAuthors: [OWNER, member]",
            "allowedAuthors[1]: no author association of GitHub; did you mean `MEMBER`?",
        ),
        ("name: a\nscript: ../brigade.js", "script: it must stay in the repository"),
        ("name: a\nscript: /etc/brigade.js", "script: it must stay in the repository"),
        ("name: a\nscript: 5", "script: it must be a path in the repository"),
        ("name: a\nrepository: --upload-pack=x", "repository: it must be a git URL or a path"),
        ("name: a\nrepository: 'ext::sh -c x'", "repository: git's remote helpers are not used"),
        ("name: a\nrepository: ftp://host/x", "repository: the scheme ftp is not known; write https://"),
        ("name: a\nrepository: https://tok3n@host/x", "repository: a URL is shown to readers"),
        ("name: a\nrepository: 'https://u:tok3n@host/x'", "repository: a URL is shown to readers"),
        ("name: a\nrepository: 'https://[x'", "repository: it is no URL that can be read"),
    ],
    ids=range(34),
)
def test_what_is_wrong_is_named_with_file_field_and_remedy(tmp_path, text, complaint):
    path = _write(tmp_path / "a", text + "\n")
    _write(tmp_path / "good", "name: acme/good\n")
    projects = FolderProjects(tmp_path)
    assert [project.name for project in projects.all()] == ["acme/good"]
    ((broken, reason),) = projects.broken()
    assert broken == path
    assert reason.startswith(f"{path}: ")
    assert complaint.replace("DIR", str(tmp_path)) in reason
    assert "tok3n" not in reason
    assert "12345" not in reason
    with pytest.raises(Misconfigured):
        projects.read("a")


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    path = _write(tmp_path / "a", "name: acme/a\nscript: 5\ndefaultPipeline: 5\nzzz: 5\n")
    with pytest.raises(BadProject) as caught:
        FolderProjects(tmp_path).read("acme/a")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"{path}: ") for line in lines)


def test_a_file_that_is_no_text_or_a_secret_that_is_none_is_refused(tmp_path):
    path = _write(tmp_path / "a", "")
    path.write_bytes(b"name: \xff\xfe")
    _write(tmp_path / "b", "name: acme/b\nsharedSecret: {file: key}\n")
    (tmp_path / "b" / "key").write_bytes(b"\xff\xfe")
    _write(tmp_path / "c", "name: acme/c\nsharedSecret: {file: key}\n")
    (tmp_path / "c" / "key").write_bytes(b"x" * 70_000)
    reasons = [reason for _, reason in FolderProjects(tmp_path).broken()]
    assert [
        said in reason for said, reason in zip(("no UTF-8", "no UTF-8", "longer than"), reasons, strict=True)
    ] == [True] * 3


def test_an_unknown_project_is_unknown(tmp_path):
    _write(tmp_path / "a", "name: acme/a\n")
    _write(tmp_path / "b", "name: ''\n")
    projects = FolderProjects(tmp_path)
    for ask in (projects.read, projects.read_by_id):
        for name in ("acme/b", "", "acme/A", "\udcff"):
            with pytest.raises(UnknownProject, match="1 of the project files there cannot be used"):
                ask(name)


def test_a_root_that_is_a_project_itself_is_found_beside_its_folders(tmp_path):
    _write(tmp_path, "name: acme/root\n")
    _write(tmp_path / "b", "name: acme/b\n")
    _write(tmp_path / ".bridge", "name: acme/hidden\n")
    _write(tmp_path / "b" / "deeper", "name: acme/deeper\n")
    (tmp_path / "file").write_text("")
    assert [project.name for project in FolderProjects(tmp_path).all()] == ["acme/b", "acme/root"]


def test_two_folders_with_one_name_are_refused_by_both_their_names(tmp_path):
    first = _write(tmp_path / "a", "name: acme/widgets\n")
    second = _write(tmp_path / "b", "name: acme/widgets\n")
    _write(tmp_path / "c", "name: acme/other\n")
    projects = FolderProjects(tmp_path)
    for ask in (lambda: projects.read("acme/widgets"), lambda: projects.read_by_id(project_id("acme/widgets"))):
        with pytest.raises(BadProject) as caught:
            ask()
        assert str(first) in str(caught.value)
        assert str(second) in str(caught.value)
    assert [project.name for project in projects.all()] == ["acme/other"]
    assert [path for path, _ in projects.broken()] == [first, second]
    second.write_text("name: acme/third\n")
    assert projects.read("acme/widgets").folder == str(tmp_path / "a")


def test_what_changes_is_seen_at_the_next_question(tmp_path):
    projects = FolderProjects(tmp_path)
    assert projects.all() == []
    path = _write(tmp_path / "a", "name: acme/a\nsharedSecret: {file: key}\n")
    with pytest.raises(BadProject, match="No such file"):
        projects.read("acme/a")
    key = tmp_path / "a" / "key"
    key.write_text("one")
    assert projects.read("acme/a").shared_secret == "one"
    assert projects.read("acme/a").shared_secret == "one"
    key.with_name("new").write_text("two")
    key.with_name("new").rename(key)
    assert projects.read("acme/a").shared_secret == "two"
    path.write_text("name: acme/a\nsharedSecret: three\n")
    assert projects.read("acme/a").shared_secret == "three"
    path.unlink()
    with pytest.raises(UnknownProject):
        projects.read("acme/a")


def test_a_file_that_did_not_change_is_not_read_again(tmp_path):
    path = _write(tmp_path / "a", "name: acme/a\nsharedSecret: {file: key}\n")
    (tmp_path / "a" / "key").write_text("one")
    projects = FolderProjects(tmp_path)
    projects.all()
    settled = projects.read("acme/a")
    assert projects.read("acme/a") is settled
    os.utime(path, ns=(1, 1))
    assert projects.read("acme/a") is not settled


def test_a_root_that_is_not_there_is_refused_with_its_name(tmp_path):
    with pytest.raises(BadProject, match=r"nowhere cannot be read \(No such file or directory\); make it"):
        FolderProjects(tmp_path / "nowhere").all()


def test_many_threads_may_ask_while_files_change(tmp_path):
    path = _write(tmp_path / "a", "name: acme/a\n")
    _write(tmp_path / "b", "name: acme/b\n")
    projects = FolderProjects(tmp_path)
    seen, wrong = [], []

    def ask():
        try:
            for _ in range(50):
                seen.append(projects.read("acme/b").name)
        except Exception as exc:
            wrong.append(exc)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for n in range(50):
        path.write_text(f"name: acme/a\nscript: {n}.js\n")
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert set(seen) == {"acme/b"}
    assert projects.read("acme/a").script == "49.js"


def test_secrets_are_in_no_repr(tmp_path):
    _write(
        tmp_path / "a",
        "name: a\nsharedSecret: hush\nsecondSecret: hush\ngenericGatewaySecret: hush\ngithub: {token: hush}\nsecrets: {a: hush}\n",
    )
    assert "hush" not in repr(FolderProjects(tmp_path).read("a"))


def test_reading_projects_imports_nothing_heavy():
    heavy = "hera flask pydantic pydantic_settings rich typer structlog"
    code = f"import sys, bridge.local.projects; print([m for m in '{heavy}'.split() if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"
