"""Rendering a folder of pipeline files into a folder of WorkflowTemplates: `bridgectl render DIR -o DIR`."""

import os
import tempfile
from pathlib import Path

from bridge.core import pipeline_files
from bridge.core.pipelines import Pipeline
from bridge.core.workflows import DEFAULT_IMAGE, render_yaml, workflow_template
from bridge.errors import BadPipeline


def render(directory: Path, out: Path, *, image: str = DEFAULT_IMAGE, namespace: str | None = None) -> list[Path]:
    """Write `<pipeline>.yaml` into `out` for each pipeline file in `directory`; answers these paths, by name.

    Nothing is removed, and nothing written if any file is wrong. A file is replaced whole, so whoever reads it
    meanwhile sees the old one or the new one. Raises BadPipeline with all that is wrong with all files.
    """
    pipelines = read(directory)
    if out.resolve() == directory.resolve():
        raise BadPipeline(f"{out}: holds the pipeline files themselves; choose another folder to render into")
    texts = {
        out / f"{pipeline.name}.yaml": render_yaml(workflow_template(pipeline, image=image, namespace=namespace))
        for pipeline in pipelines
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            _replace(path, text)
    except OSError as exc:
        raise BadPipeline(f"{out}: cannot be written to: {exc.strerror}; choose another folder") from exc
    return list(texts)


def read(directory: Path) -> list[Pipeline]:
    """The pipelines of the `*.yaml` in `directory`, by name.

    Raises BadPipeline with all that is wrong with all files, and if there is none.
    """
    complaints: list[str] = []
    found: dict[str, Path] = {}
    pipelines: list[Pipeline] = []
    for path in _files(directory):
        try:
            pipeline = read_file(path)
        except BadPipeline as exc:
            complaints.append(str(exc))
            continue
        earlier = found.setdefault(pipeline.name, path)
        if earlier != path:
            complaints.append(f"{path}: name: `{pipeline.name}` is also the name in {earlier}; rename one")
        pipelines.append(pipeline)
    if complaints:
        raise BadPipeline("\n".join(complaints))
    return sorted(pipelines, key=lambda pipeline: pipeline.name)


def read_file(path: Path) -> Pipeline:
    """The pipeline in one file; without a `name` it is named as the file. Raises BadPipeline."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise BadPipeline(f"{path}: is not UTF-8; save it as that") from exc
    except OSError as exc:
        raise BadPipeline(f"{path}: cannot be read: {exc.strerror}; check the path and its permissions") from exc
    return pipeline_files.parse(text, source=str(path), default_name=path.stem)


def _files(directory: Path) -> list[Path]:
    try:
        inside = sorted(directory.iterdir())
    except OSError as exc:
        raise BadPipeline(f"{directory}: cannot be read: {exc.strerror}; name a folder of pipeline files") from exc
    misnamed = [path for path in inside if path.suffix == ".yml"]
    if misnamed:
        raise BadPipeline(
            "\n".join(f"{path}: would not be read; rename it to {path.stem}.yaml" for path in misnamed)
        )
    files = [path for path in inside if path.suffix == ".yaml" and not path.name.startswith(".")]
    if not files:
        raise BadPipeline(f"{directory}: there is no *.yaml in it; name a folder of pipeline files")
    return files


def _replace(path: Path, text: str) -> None:
    """Write a file so that it is never seen half, whatever happens meanwhile."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
