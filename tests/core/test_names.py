import re

from hypothesis import given
from hypothesis import strategies as st

from bridge.core import names

texts = st.text(max_size=80)
DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


@given(texts, texts, texts, texts)
def test_a_run_id_is_a_dns_label_with_room_for_its_attempts(project, provider, pipeline, delivery):
    run = names.run_id(project=project, provider=provider, pipeline=pipeline, delivery=delivery)
    assert DNS_LABEL.fullmatch(names.workflow_name(run, 1))
    assert DNS_LABEL.fullmatch(names.workflow_name(run, 99_999))
    assert len(names.workflow_name(run, 99_999)) <= 63
    assert run == names.run_id(project=project, provider=provider, pipeline=pipeline, delivery=delivery)


@given(st.lists(texts, min_size=4, max_size=4), st.integers(0, 3), texts)
def test_every_part_of_the_cause_tells_runs_apart(parts, position, other):
    changed = [*parts]
    changed[position] = other
    keys = ("project", "provider", "pipeline", "delivery")
    one = names.run_id(**dict(zip(keys, parts, strict=True)))
    two = names.run_id(**dict(zip(keys, changed, strict=True)))
    assert (one == two) == (parts == changed)


def test_parts_cannot_be_moved_into_each_other():
    one = names.run_id(project="a/b", provider="c", pipeline="p", delivery="d")
    assert one != names.run_id(project="a/bc", provider="", pipeline="p", delivery="d")


@given(texts, st.integers(1, 9), texts, st.integers(1, 99))
def test_a_build_id_is_what_brigade_takes(run, epoch, step, number):
    build = names.build_id(run=run, epoch=epoch, step=step, number=number)
    assert re.fullmatch(r"[0-9abcdefghjkmnpqrstvwxyz]{26}", build)
    assert build != names.build_id(run=run, epoch=epoch, step=step, number=number + 1)
    assert build != names.build_id(run=run, epoch=epoch + 1, step=step, number=number)


def test_a_projects_id_is_brigades():
    """sha256 of the name, cut to 54 (facts: Brigade's project Secrets)."""
    assert names.project_id("acme/widgets") == "brigade-d782c874402305a00adcd10a58001c708039c0d0e86a047a74cc36"


def test_an_exit_step_is_told_from_every_other():
    assert names.is_exit_step(names.exit_step(2))
    assert not names.is_exit_step("exit-2")


def test_brigade_names_become_argo_names():
    assert names.mapped("pull_request:opened") == "pull-request-opened"


def test_a_projects_id_is_told_from_a_name_that_begins_like_one():
    assert names.is_project_id(names.project_id("acme/widgets"))
    for name in ("brigade-community/widgets", "acme/widgets", "brigade-", f"{names.project_id('a/b')}-bridge"):
        assert not names.is_project_id(name)
