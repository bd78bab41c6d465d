"""The chart's alerts: Prometheus reads them, they fire when they should, and ask for metrics that are served."""

import re

import pytest
import urllib3
import yaml
from prometheus_client.parser import text_string_to_metric_families

from bridge.core.metrics import METRICS
from bridge.flows.counting import KINDS, Posting
from tests.chart.helming import CHART, HOME, by_default, everything, of_kind, rendered, the
from tests.chart.promql import Refused, asked, check_rules, promql_binary, series
from tests.web.worlds import a_world

DOCS = CHART.parents[1] / "docs" / "operations.md"
HOUR = 61
"""Samples of an hour, one a minute."""
OFTEN = [2.0 * n for n in range(2 * HOUR)]
NEVER = [0.0] * 2 * HOUR
AFRESH = [0.0] * (2 * HOUR - 1) + [1.0]


@pytest.fixture(scope="session", autouse=True)
def promql_is_built(pytestconfig):
    """Prometheus' engine, with a line about it that pytest does not capture."""
    capturing = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capturing.global_and_fixture_disabled():
        return promql_binary()


def groups():
    (rules,) = of_kind(rendered({"metrics": {"rules": True}}), "PrometheusRule")
    return rules["spec"]["groups"]


def rules():
    return {rule["alert"]: rule for group in groups() for rule in group["rules"]}


def of(name, values, **labels):
    """A series of one of our pods."""
    return series(name, values, namespace=HOME, pod="bridge-controller-1", **labels)


def buckets(*, slow):
    """Two deliveries a minute, answered within a second or not within 5."""
    return [
        of("bridge_event_seconds_bucket", OFTEN if not slow or le in {"10.0", "+Inf"} else NEVER, le=le)
        for le in ("1.0", "5.0", "10.0", "+Inf")
    ]


def statuses(**of_results):
    return [of("bridge_statuses_total", of_results.get(one, NEVER), result=one) for one in Posting]


def actions(name, **of_kinds):
    return [of(name, of_kinds.get(kind, NEVER), kind=kind) for kind in KINDS]


def another(name, values, **labels):
    return series(name, values, namespace="another", **labels)


TWO = [1.0] * 2 * HOUR
CASES = {
    "BridgeDeliveriesNotStored": (
        [[of("bridge_events_total", OFTEN, answer=one)] for one in ("not_stored", "failed")],
        [
            [],
            [of("bridge_events_total", OFTEN, answer="accepted")],
            [of("bridge_events_total", [7.0] * HOUR, answer="not_stored")],
            [another("bridge_events_total", OFTEN, answer="not_stored")],
        ],
    ),
    "BridgeDeliveriesNotVerified": (
        [[of("bridge_events_total", OFTEN, answer="not_verified")]],
        [[of("bridge_events_total", OFTEN, answer="duplicate")]],
    ),
    "BridgeGatewaySlow": ([buckets(slow=True)], [[], buckets(slow=False)]),
    "BridgeDeliveriesLost": (
        [[of("bridge_deliveries_lost", [0.0, 3.0]), series("bridge_deliveries_lost", [0.0], namespace=HOME)]],
        [[], [of("bridge_deliveries_lost", [3.0, 0.0])]],
    ),
    "BridgeDeliveriesExpired": (
        [[of("bridge_deliveries_expired_total", AFRESH)]],
        [[], [of("bridge_deliveries_expired_total", [4.0] * HOUR)]],
    ),
    "BridgeSweepsStandStill": (
        [[of("bridge_delivery_sweeps_total", [9.0] * HOUR), of("bridge_delivery_sweeps_total", NEVER, n="2")]],
        # Without a webhook to look after nobody sweeps, and there is no such metric.
        [[], [of("bridge_delivery_sweeps_total", OFTEN), of("bridge_delivery_sweeps_total", NEVER, n="2")]],
    ),
    "BridgeNobodyLeads": (
        [
            [],
            [of("bridge_leading", [1.0, 0.0]), of("bridge_leading", [0.0], n="2")],
            [another("bridge_leading", TWO)],
        ],
        [[of("bridge_leading", [0.0]), of("bridge_leading", [1.0], n="2")]],
    ),
    "BridgeControllerStuck": (
        [
            [of("bridge_open_runs", TWO), of("bridge_looks_total", [9.0] * HOUR)],
            [of("bridge_open_runs", TWO)],
        ],
        [
            [],
            [of("bridge_open_runs", NEVER), of("bridge_looks_total", [9.0] * HOUR)],
            [of("bridge_open_runs", TWO), of("bridge_looks_total", OFTEN)],
        ],
    ),
    "BridgeStatusOverdue": (
        [[of("bridge_overdue_seconds", [0.0, 61.0])]],
        [[], [of("bridge_overdue_seconds", [100.0, 60.0])]],
    ),
    "BridgeOldestPending": (
        [[of("bridge_oldest_pending_seconds", [4 * 3600.0 + 1])]],
        [[], [of("bridge_oldest_pending_seconds", [4 * 3600.0])]],
    ),
    "BridgeActionsNotDone": (
        [[*actions("bridge_owed_actions", submit=TWO), *actions("bridge_actions_total", post=OFTEN)]],
        [
            [],
            [*actions("bridge_owed_actions", submit=TWO), *actions("bridge_actions_total", submit=OFTEN)],
            [*actions("bridge_owed_actions"), *actions("bridge_actions_total")],
        ],
    ),
    "BridgeStatusesGivenUp": (
        [statuses(given_up=AFRESH)],
        [[], statuses(taken=OFTEN, failed=OFTEN), statuses(given_up=[3.0] * HOUR)],
    ),
    "BridgeStatusesNotTaken": (
        [statuses(failed=OFTEN)],
        [[], statuses(), statuses(failed=OFTEN, taken=OFTEN)],
    ),
    "BridgeStatusesPutOff": ([statuses(put_off=OFTEN, taken=OFTEN)], [[], statuses(taken=OFTEN)]),
    "BridgeBrokenRecords": (
        [[of("bridge_broken_records", [0.0, 1.0])]],
        [[], [of("bridge_broken_records", [1.0, 0.0])], [of("bridge_broken_pipelines", [1.0])]],
    ),
    "BridgeSetAside": (
        [[of(f"bridge_broken_{one}", [1.0])] for one in ("pipelines", "projects")],
        [[], [of("bridge_broken_records", [1.0])], [of("bridge_broken_pipelines", [0.0])]],
    ),
}


def test_every_alert_has_its_cases():
    assert set(CASES) == set(rules())


@pytest.mark.parametrize("alert", CASES)
def test_an_alert_fires_when_it_should_and_only_then(alert):
    expression = rules()[alert]["expr"]
    firing, quiet = CASES[alert]
    for known in firing:
        assert asked([expression], known)[0], known
    for known in quiet:
        assert not asked([expression], known)[0], known


def test_prometheus_reads_the_rules_of_both_forms_and_they_are_the_same():
    objects = rendered(everything())
    (found,) = of_kind(objects, "PrometheusRule")
    text = the(objects, "ConfigMap", "bridge-alerts")["data"]["bridge.rules.yaml"]
    check_rules(text)
    assert yaml.safe_load(text) == found["spec"]
    assert not [one for one in by_default() if one["metadata"]["name"] == "bridge-alerts"]
    assert not of_kind(by_default(), "PrometheusRule", "PodMonitor")


def test_what_prometheus_does_not_read_is_told():
    with pytest.raises(Refused, match="parse error"):
        asked(["sum("], [])
    with pytest.raises(Refused, match="could not parse expression"):
        check_rules("groups: [{name: x, rules: [{alert: A, expr: 'sum(', for: 1m}]}]")


@pytest.mark.parametrize(("minutes", "window"), [(5, "30m"), (12.5, "38m"), (30, "90m")])
def test_the_window_of_sweeps_is_wide_enough_for_three_of_them(minutes, window):
    values = {"metrics": {"rules": True}, "github": {"sweepMinutes": minutes}}
    (found,) = of_kind(rendered(values), "PrometheusRule")
    (rule,) = [one for one in found["spec"]["groups"][0]["rules"] if one["alert"] == "BridgeSweepsStandStill"]
    assert (rule["for"], f"[{window}]" in rule["expr"]) == (window, True)


def test_who_sweeps_nothing_is_not_told_that_nobody_sweeps():
    values = {"metrics": {"rules": True}, "github": {"sweepMinutes": 0}}
    (found,) = of_kind(rendered(values), "PrometheusRule")
    assert "BridgeSweepsStandStill" not in str(found)


def served_by_the_gateway():
    """Of a gateway that took a delivery, and one that nobody signed."""
    world = a_world()
    world.deliver()
    world.deliver(secret="wrong")
    return world.client.get("/metrics").text


@pytest.fixture
def served_by_the_controller(realm):
    """Of the process that the chart starts."""
    process = realm.process(
        BRIDGE_GITHUB_API_URL="http://127.0.0.1:9",
        BRIDGE_WEBHOOK_URL="https://ci.example.com/events/github",
        BRIDGE_LOG_LEVEL="info",
    )
    try:
        port = realm.until(lambda: re.search(r"probes and metrics on port (\d+)", realm.said()), "its port")[1]
        answer = urllib3.request("GET", f"http://127.0.0.1:{port}/metrics", timeout=60, retries=False)
    finally:
        process.kill()
        process.wait(60)
    return answer.data.decode()


def samples(text):
    return {
        (sample.name, frozenset(sample.labels.items()))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_alert_asks_for_metrics_and_labels_that_are_served(served_by_the_controller):
    gateway, controller = served_by_the_gateway(), served_by_the_controller
    served = samples(gateway) | samples(controller)
    names = {name for name, _ in served}
    for alert, rule in rules().items():
        asked_for = set(re.findall(r"bridge_[a-z_]+", rule["expr"]))
        assert asked_for, alert
        assert asked_for <= names, alert
    results = {dict(labels)["result"] for name, labels in served if name == "bridge_statuses_total"}
    assert results == {str(one) for one in Posting}
    assert {dict(labels)["kind"] for name, labels in served if name == "bridge_owed_actions"} == set(KINDS)
    answers = {dict(labels)["answer"] for name, labels in served if name == "bridge_events_total"}
    assert {"accepted", "not_verified"} <= answers


def test_what_the_controller_serves_is_described_and_in_the_docs(served_by_the_controller):
    pages = {page.name: page.read_text() for page in DOCS.parent.glob("*.md")}
    for family in text_string_to_metric_families(served_by_the_controller):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert family.documentation.endswith("."), name
        assert family.type in {"counter", "gauge"}, name
        if name in METRICS:
            # `bridge_broken_records`, `_pipelines`, `_projects` share a row.
            told = f"`{name}" in pages[DOCS.name] or f"`_{name.split('_', 2)[2]}`" in pages[DOCS.name]
            assert told, name


def test_every_alert_is_in_the_docs_with_what_to_do():
    table = {
        cells[0]: cells[1:]
        for line in DOCS.read_text().splitlines()
        if (cells := [cell.strip(" `") for cell in line.strip("|").split("|")])[0].startswith("Bridge")
    }
    assert set(table) == set(rules())
    for name, (severity, meaning, to_do) in table.items():
        assert severity == rules()[name]["labels"]["severity"], name
        assert len(meaning) > 20, name
        assert len(to_do) > 20, name
