"""Rendered templates hold only fields that Argo knows, and every misspelt field would be noticed.

Hera drops what it does not know in silence, and so does a cluster with minimal CRDs (facts/argo.md). shape.json
pins what we render; the CRDs of Argo itself are asked too where they lie beside the repository.
"""

import copy
import functools
import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from bridge.core.pipeline_files import parse
from bridge.core.workflows import workflow_template

ROOT = Path(__file__).parents[2]
CRD = ROOT.parent / "shared" / "argo-crds" / "workflowtemplates.yaml"
FREE_FORM = {"labels", "annotations", "requests", "limits"}
"""Mappings whose keys Argo does not know."""

HAND_WRITTEN = {"native"}

EVERYTHING = """
name: everything
projects: [acme/widgets, acme/lib-*]
on: {push: {branches: [main, release/**], tags: v*}, pull_request: }
steps:
  - {name: build, event: [build:pr, build], tries: 3, backoff: 90s, timeout: 1h30m, lost: 2}
  - {name: unit_test, needs: build}
  - {name: lint, needs: build, event: same-as-run}
  - {name: package, needs: [unit_test, lint]}
exit: {failed: none, succeeded: build_succeeded, timeout: 250ms}
timeout: 45m
checkout: commit
report: {context: ci/everything}
unhandled: ok
"""


def templates():
    rendered = {"everything": workflow_template(parse(EVERYTHING, source="everything.yaml"), namespace="ci")}
    for path in sorted((ROOT / "argo-templates").glob("*.yaml")):
        rendered[path.stem] = yaml.safe_load(path.read_text(encoding="utf-8"))
    hand_written = {name: rendered.pop(name) for name in HAND_WRITTEN}
    return rendered, hand_written


TEMPLATES, OTHERS = templates()


@functools.cache
def our_shape():
    schema = json.loads((Path(__file__).parent / "shape.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@functools.cache
def argo_shape():
    if not CRD.exists():
        pytest.skip("not needed here: Argo's CRDs are not beside this repository (../shared/argo-crds)")
    # The C loader, where there is one: a megabyte takes the other one ten times as long.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    crd = yaml.load(CRD.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506
    (version,) = crd["spec"]["versions"]
    schema = strict(version["schema"]["openAPIV3Schema"])
    text_map = {"type": "object", "additionalProperties": {"type": "string"}}
    # A CRD leaves metadata to the API server, which knows these of it and more.
    schema["properties"]["metadata"] = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "namespace": {"type": "string"},
            "labels": text_map,
            "annotations": text_map,
        },
        "additionalProperties": False,
    }
    return jsonschema.Draft202012Validator(schema)


def strict(schema):
    """A CRD's schema, refusing what an API server prunes, or with fieldValidation=Strict refuses."""
    strictly = dict(schema)
    if "properties" in schema:
        strictly["properties"] = {name: strict(part) for name, part in schema["properties"].items()}
    for keyword in ("items", "additionalProperties"):
        if isinstance(schema.get(keyword), dict):
            strictly[keyword] = strict(schema[keyword])
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if schema.get("type") == "object" and not open_ended:
        strictly["additionalProperties"] = False
    return strictly


def first_error(validator, template):
    found = jsonschema.exceptions.best_match(validator.iter_errors(template))
    return None if found is None else f"{found.json_path}: {found.message[:300]}"


def misspellings(template):
    """Each field of each mapping in `template` misspelt once: (where, the changed template)."""

    def walk(value, path):
        if isinstance(value, list):
            for index, item in enumerate(value):
                yield from walk(item, (*path, index))
        elif isinstance(value, dict):
            for key in value:
                yield (*path, key)
                yield from walk(value[key], (*path, key))

    for path in walk(template, ()):
        changed = copy.deepcopy(template)
        place = changed
        for part in path[:-1]:
            place = place[part]
        place[f"{path[-1]}x"] = place.pop(path[-1])
        yield path, changed


def patch_of(template):
    return json.loads(template["spec"]["podSpecPatch"])


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_a_rendered_template_has_the_shape_that_we_pinned(name):
    assert first_error(our_shape(), TEMPLATES[name]) is None


@pytest.mark.parametrize("name", sorted({**TEMPLATES, **OTHERS}))
def test_a_template_is_valid_for_argos_own_crd(name):
    assert first_error(argo_shape(), {**TEMPLATES, **OTHERS}[name]) is None


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_a_template_written_by_hand_has_no_field_that_a_rendered_one_could_not_have(name):
    known = set(names_of(json.loads((Path(__file__).parent / "shape.json").read_text(encoding="utf-8"))))
    fields = {path[-1] for path, _ in misspellings(OTHERS[name])}
    labels = {one for one in fields if one.startswith("bridge.brigade.sh/")}
    assert fields - labels - known == set()


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_argos_own_containers_of_a_template_written_by_hand_fit_pod_security_restricted_as_ours_do(name):
    """A real Argo could start no pod of it in a namespace that enforces that (docs/verified.md)."""
    assert patch_of(OTHERS[name]) == patch_of(TEMPLATES["everything"])


def names_of(schema):
    """The names of all properties in a schema."""
    if isinstance(schema, list):
        for part in schema:
            yield from names_of(part)
    elif isinstance(schema, dict):
        yield from schema.get("properties", {})
        for part in schema.values():
            yield from names_of(part)


def test_every_misspelt_field_is_refused_by_the_shape_that_we_pinned():
    tried = list(misspellings(TEMPLATES["everything"]))
    assert len(tried) > 200
    assert [path for path, changed in tried if our_shape().is_valid(changed)] == []


def test_every_misspelt_field_is_refused_by_argos_own_crd():
    tried = [
        (path, changed)
        for path, changed in misspellings(TEMPLATES["everything"])
        if not FREE_FORM & set(path[:-1])
    ]
    assert len(tried) > 200
    assert [path for path, changed in tried if argo_shape().is_valid(changed)] == []


def test_the_pod_spec_patch_is_pinned_too_and_every_misspelt_field_in_it_refused():
    ours = our_shape().evolve(schema={**our_shape().schema, "$ref": "#/$defs/PodSpecPatch"})
    for template in TEMPLATES.values():
        assert first_error(ours, patch_of(template)) is None
        assert [path for path, changed in misspellings(patch_of(template)) if ours.is_valid(changed)] == []


def test_the_pod_spec_patch_has_only_fields_that_argos_own_crd_has_for_a_container():
    spec = argo_shape().schema["properties"]["spec"]["properties"]["templates"]["items"]["properties"]
    container = jsonschema.Draft202012Validator(spec["container"])
    for part in ("initContainers", "containers"):
        for patched in patch_of(TEMPLATES["everything"])[part]:
            assert first_error(container, patched) is None
            assert [path for path, changed in misspellings(patched) if container.is_valid(changed)] == []


def test_no_text_of_a_template_is_evaluated_by_argo_but_the_variables_that_we_wrote():
    allowed = {
        "{{workflow.parameters.run}}",
        "{{workflow.parameters.attempt}}",
        "{{workflow.parameters.commit}}",
        "{{workflow.parameters.ref}}",
        "{{workflow.name}}",
        "{{workflow.uid}}",
    }

    def texts(value):
        if isinstance(value, str):
            yield value
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from texts(item)

    for template in TEMPLATES.values():
        assert {text for text in texts(template) if "{{" in text} <= allowed
