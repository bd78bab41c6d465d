"""Projects as folders: the port Projects on one machine.

The step's process uses it too, so nothing heavy is imported here.
"""

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bridge.core.projects import Project
from bridge.errors import BadProject, UnknownProject
from bridge.local.project_files import FILE_NAME, ProjectFile, read_project
from bridge.local.stamps import Stamp, stamp_of


class FolderProjects:
    """The projects under a folder: each of its folders with a `project.yaml`, and the folder itself if it has one.

    Folders whose name begins with a dot are left out. Files are read again when they changed: every question looks
    once at their times and sizes. One file that cannot be used hinders no other project.

    Args:
        root: the folder.

    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._lock = threading.Lock()
        self._known: dict[Path, _Known] = {}

    def read(self, name: str) -> Project:
        """By name. Raises UnknownProject, and BadProject with the reason if its file cannot be used."""
        files = self._files()
        return self._only([file for file in files if name and file.name == name], f"project {name[:200]}", files)

    def read_by_id(self, project_id: str) -> Project:
        """By id. Raises UnknownProject, and BadProject with the reason if its file cannot be used."""
        files = self._files()
        found = [file for file in files if file.project is not None and file.project.id == project_id]
        return self._only(found, f"project with the id {project_id[:100]}", files)

    def all(self) -> list[Project]:
        """Every project that can be used, by name."""
        files = self._files()
        twice = _twice(files)
        found = [file.project for file in files if file.project is not None and file.name not in twice]
        return sorted(found, key=lambda project: project.name)

    def fresh(self, known: Project) -> Project:
        """Its file is looked at each time anyway; see the port."""
        return self.read(known.name)

    def broken(self) -> Sequence[tuple[Path, str]]:
        """The files that cannot be used, each with the reason."""
        files = self._files()
        twice = _twice(files)
        reasons = ((file.path, file.reason or twice.get(file.name, "")) for file in files)
        return [(path, reason) for path, reason in reasons if reason]

    def _only(self, found: list[ProjectFile], what: str, files: list[ProjectFile]) -> Project:
        if not found:
            broken = sum(1 for file in files if file.reason)
            hint = f"; {broken} of the project files there cannot be used" if broken else ""
            raise UnknownProject(f"there is no {what} in {self.root}{hint}")
        first = found[0]
        if len(found) > 1:
            raise BadProject(_twice(files)[first.name])
        if first.project is None:
            raise BadProject(first.reason)
        return first.project

    def _files(self) -> list[ProjectFile]:
        paths = self._paths()
        with self._lock:
            self._known = {path: self._current(path) for path in paths}
            return [known.file for known in self._known.values()]

    def _current(self, path: Path) -> "_Known":
        known = self._known.get(path)
        if known is not None and all(stamp_of(one) == stamp for one, stamp in known.stamps.items()):
            return known
        # Stamps are from before the reading. One that there was none of yet differs at the next question, and the
        # file is read once more.
        before = {one: stamp_of(one) for one in (known.file.read if known is not None else (path,))}
        file = read_project(path)
        return _Known(file, {one: before.get(one) for one in file.read})

    def _paths(self) -> list[Path]:
        try:
            with os.scandir(self.root) as entries:
                folders = sorted(entry.name for entry in entries if not entry.name.startswith("."))
        except OSError as exc:
            raise BadProject(
                f"the projects' folder {self.root} cannot be read ({exc.strerror}); make it, or name another one"
            ) from exc
        candidates = [self.root / FILE_NAME, *(self.root / folder / FILE_NAME for folder in folders)]
        return [path for path in candidates if stamp_of(path) is not None]


@dataclass(frozen=True)
class _Known:
    file: ProjectFile
    stamps: dict[Path, Stamp]


def _twice(files: list[ProjectFile]) -> dict[str, str]:
    """The names that more than one file claims, each with what to say about it."""
    claims: dict[str, list[Path]] = {}
    for file in files:
        if file.name:
            claims.setdefault(file.name, []).append(file.path)
    return {
        name: f"{paths[0]}: name: the project {name} is also in {', '.join(map(str, paths[1:]))}; keep one of them"
        for name, paths in claims.items()
        if len(paths) > 1
    }
