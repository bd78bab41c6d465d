"""The file `project.yaml` of one machine.

It is checked by hand: the step's process reads it too and imports no pydantic.

::

    name: acme/widgets            # as the git host spells it
    sharedSecret: …               # signs the webhooks; every secret may also be {file: PATH}
    secondSecret: …               # also accepted, so that secrets can be rotated
    genericGatewaySecret: …       # in the addresses of generic events; without it they are refused
    github: {token: …}            # for commit statuses
    repository: .                 # a git URL, or a path from this folder; the folder itself if left out
    script: brigade.js            # the script's path in the repository
    defaultPipeline: false        # opt in to the default pipeline
    allowedAuthors: [OWNER, MEMBER, COLLABORATOR]
    secrets: {name: …}            # what the script sees as p.secrets
    allowPrivilegedJobs: false    # Brigade's own default is true; on a machine that is somebody's it is not
    allowHostMounts: false

A project that needs privileged jobs says so here, once, where it is reviewed.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from bridge.core import names, strict_yaml
from bridge.core.projects import AUTHOR_ASSOCIATIONS, DEFAULT_ALLOWED_AUTHORS, Project
from bridge.errors import BadProject

FILE_NAME = "project.yaml"

MAX_SECRET_BYTES = 64 * 1024

_FIELDS = (
    "name",
    "sharedSecret",
    "secondSecret",
    "genericGatewaySecret",
    "github",
    "repository",
    "script",
    "defaultPipeline",
    "allowedAuthors",
    "secrets",
    "allowPrivilegedJobs",
    "allowHostMounts",
)
_NAME = re.compile(r"[A-Za-z0-9_][-A-Za-z0-9_.]*(?:/[A-Za-z0-9_.][-A-Za-z0-9_.]*)*")
_MAX_NAME = 200
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SCP_LIKE = re.compile(r"[A-Za-z0-9_.-]+@[A-Za-z0-9_.-]+:[^:]")
_HELPER = re.compile(r"[A-Za-z0-9+.-]+::")
_SCHEMES = ("https", "http", "ssh", "git", "file")
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class ProjectFile:
    """What became of one `project.yaml`."""

    path: Path
    name: str
    """The project's name as far as it could be read; empty if not."""
    project: Project | None
    """None: it cannot be used."""
    reason: str
    """Why it cannot be used: a line for everything that is wrong; empty if it can."""
    read: tuple[Path, ...]
    """All files that were read for it, the secrets' files included."""


def read_project(path: Path) -> ProjectFile:
    """Read the `project.yaml` at `path` and the secret files that it names. Raises nothing."""
    reader = _Reader(path)
    try:
        project = reader.project()
    except BadProject as exc:
        return ProjectFile(path, reader.name, None, str(exc), tuple(reader.read))
    return ProjectFile(path, project.name, project, "", tuple(reader.read))


class _Reader:
    """Reads one file; what is wrong is collected, so that all of it is said at once."""

    def __init__(self, path: Path) -> None:
        self.name = ""
        self.read = [path]
        self._path = path
        self._wrong: list[str] = []

    def project(self) -> Project:
        """The project. Raises BadProject that names the file, the fields and the remedies."""
        fields = self._fields()
        self._refuse_unknown(fields, _FIELDS, "")
        self.name = self._name(fields)
        github = self._mapping(fields, "github")
        self._refuse_unknown(github, ("token",), "github.")
        source, clone_url = self._source(fields)
        project = Project(
            name=self.name,
            id=names.project_id(self.name),
            shared_secret=self._secret(fields, "sharedSecret"),
            second_secret=self._secret(fields, "secondSecret"),
            generic_secret=self._secret(fields, "genericGatewaySecret"),
            token=self._secret(github, "token", within="github."),
            clone_url=clone_url,
            default_pipeline=self._flag(fields, "defaultPipeline"),
            allowed_authors=self._authors(fields),
            secrets=self._secrets(fields),
            folder=str(self._folder),
            source=source,
            script=self._script(fields),
            allow_privileged_jobs=self._flag(fields, "allowPrivilegedJobs"),
            allow_host_mounts=self._flag(fields, "allowHostMounts"),
        )
        if self._wrong:
            raise BadProject("\n".join(f"{self._path}: {line}" for line in self._wrong))
        return project

    @property
    def _folder(self) -> Path:
        return self._path.parent

    def _fields(self) -> Mapping[str, object]:
        try:
            content = strict_yaml.loaded(self._path.read_text(encoding="utf-8"))
        except OSError as exc:
            raise BadProject(f"{self._path}: it cannot be read ({exc.strerror}); check its access rights") from exc
        except UnicodeDecodeError as exc:
            raise BadProject(f"{self._path}: it is no UTF-8 text; save it as such") from exc
        except strict_yaml.NotStrictYaml as exc:
            raise BadProject(f"{self._path}: {exc}") from exc
        if not isinstance(content, dict):
            raise BadProject(f"{self._path}: a project is a mapping; write at least `name: OWNER/REPOSITORY`")
        return content

    def _refuse_unknown(self, fields: Mapping[str, object], known: tuple[str, ...], within: str) -> None:
        for field in fields:
            if field == "id" and not within:
                self._wrong.append("id: it follows from the name; leave it out")
            elif field not in known:
                self._wrong.append(f"{within}{_cut(field)}: unknown field{_instead(field, known)}")

    def _name(self, fields: Mapping[str, object]) -> str:
        name = fields.get("name")
        if name is None:
            self._wrong.append("name: it is missing; write the repository's full name, like `name: acme/widgets`")
            return ""
        if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > _MAX_NAME or ".." in name:
            self._wrong.append("name: it is no repository's name; write it like `acme/widgets`")
            return ""
        return name

    def _secret(self, fields: Mapping[str, object], field: str, *, within: str = "") -> str:
        value = fields.get(field)
        if value is None:
            return ""
        if isinstance(value, str):
            return value
        if isinstance(value, dict) and list(value) == ["file"] and isinstance(value["file"], str):
            return self._secret_file(value["file"], f"{within}{field}")
        self._wrong.append(
            f"{within}{_cut(field)}: it must be text, in quotes if it looks like a number, or {{file: PATH}}"
        )
        return ""

    def _secret_file(self, name: str, field: str) -> str:
        path = self._folder / name
        self.read.append(path)
        try:
            with path.open("rb") as file:
                content = file.read(MAX_SECRET_BYTES + 1)
            if len(content) > MAX_SECRET_BYTES:
                self._wrong.append(
                    f"{_cut(field)}: {path} is longer than {MAX_SECRET_BYTES} bytes; name another file"
                )
                return ""
            return content.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            self._wrong.append(f"{_cut(field)}: {path} is no UTF-8 text; name another file")
        except (OSError, ValueError) as exc:
            why = getattr(exc, "strerror", None) or "no file has such a name"
            self._wrong.append(f"{_cut(field)}: {path} cannot be read ({why}); make it, or name another file")
        return ""

    def _secrets(self, fields: Mapping[str, object]) -> dict[str, str]:
        secrets = self._mapping(fields, "secrets")
        return {name: self._secret(secrets, name, within="secrets.") for name in secrets}

    def _source(self, fields: Mapping[str, object]) -> tuple[str, str]:
        """Where the repository is, and its clone URL if that is a URL."""
        where = fields.get("repository")
        if where is None:
            return str(self._folder), ""
        if not isinstance(where, str) or not where or where.startswith("-") or "\x00" in where:
            self._wrong.append("repository: it must be a git URL or a path from this folder")
            return "", ""
        if _HELPER.match(where):
            self._wrong.append(
                f"repository: git's remote helpers are not used; write {_listed(_SCHEMES)} or a path"
            )
            return "", ""
        if _URL.match(where):
            return self._url(where)
        if _SCP_LIKE.match(where):
            return where, where
        return str((self._folder / where).absolute()), ""

    def _url(self, where: str) -> tuple[str, str]:
        try:
            parts = urlsplit(where)
            secret = parts.password is not None or (parts.username is not None and parts.scheme != "ssh")
        except ValueError:
            self._wrong.append(
                "repository: it is no URL that can be read; write it like https://HOST/OWNER/NAME.git"
            )
            return "", ""
        if parts.scheme not in _SCHEMES:
            self._wrong.append(
                f"repository: the scheme {_cut(parts.scheme)} is not known; write {_listed(_SCHEMES)}"
            )
        elif secret:
            self._wrong.append("repository: a URL is shown to readers; leave the user and password out of it")
        return where, where

    def _script(self, fields: Mapping[str, object]) -> str:
        script = fields.get("script", "brigade.js")
        if not isinstance(script, str) or not script or "\x00" in script:
            self._wrong.append("script: it must be a path in the repository, like `brigade.js`")
            return ""
        path = PurePosixPath(script)
        if path.is_absolute() or ".." in path.parts:
            self._wrong.append("script: it must stay in the repository; write a path without `..` and first `/`")
        return str(path)

    def _authors(self, fields: Mapping[str, object]) -> tuple[str, ...]:
        authors = fields.get("allowedAuthors")
        if authors is None:
            return DEFAULT_ALLOWED_AUTHORS
        if not isinstance(authors, list) or not all(isinstance(author, str) for author in authors):
            self._wrong.append(f"allowedAuthors: it must be a list of {', '.join(AUTHOR_ASSOCIATIONS)}")
            return ()
        for position, author in enumerate(authors):
            if author not in AUTHOR_ASSOCIATIONS:
                hint = _instead(author, AUTHOR_ASSOCIATIONS)
                self._wrong.append(f"allowedAuthors[{position}]: no author association of GitHub{hint}")
        return tuple(authors)

    def _flag(self, fields: Mapping[str, object], field: str) -> bool:
        value = fields.get(field, False)
        if not isinstance(value, bool):
            self._wrong.append(f"{field}: it must be true or false")
            return False
        return value

    def _mapping(self, fields: Mapping[str, object], field: str) -> Mapping[str, object]:
        value = fields.get(field)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self._wrong.append(f"{field}: it must be a mapping")
            return {}
        return value


def _instead(name: str, known: Iterable[str]) -> str:
    choices = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower(), choices, n=1)
    return f"; did you mean `{choices[close[0]]}`?" if close else f"; known are {', '.join(choices.values())}"


def _listed(schemes: Iterable[str]) -> str:
    return ", ".join(f"{scheme}://…" for scheme in schemes)


def _cut(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:_SHOWN_CHARACTERS])
