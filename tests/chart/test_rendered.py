"""What the chart makes of its values, without a cluster."""

import base64
import json
import re
import tomllib

import pytest
import yaml

from bridge import settings
from bridge.core.workflow_templates import pipeline_of
from bridge.core.workflows import DEFAULT_IMAGE, SERVICE_ACCOUNT
from bridge.rendering import read_file, render
from bridge.settings import PREFIX, Settings
from bridge.wiring.controlling import LEASE_NAME
from tests.chart.helming import (
    CHART,
    HOME,
    KUBE_VERSION,
    Refused,
    bare,
    by_default,
    everything,
    helm,
    of_kind,
    rendered,
    the,
)
from tests.web.worlds import a_world

ROOT = CHART.parents[1]
DEFAULT_PIPELINE = ROOT / "bridge/local/default_pipelines"
VALUE_SETS = {"default": {}, "everything": everything(), "bare": bare()}
PAGES = {"/", "/live", "/signin", "/signout", "/theme", "/runs", "/projects", "/badge", "/static", "/api/v1"}
HOOKS = {"/events/github", "/events/cloudevents", "/simpleevents/v1", "/cloudevents/v02"}


def deployments(objects):
    return {one["metadata"]["name"]: one for one in of_kind(objects, "Deployment")}


def pod_spec(deployment):
    return deployment["spec"]["template"]["spec"]


def config(objects, name):
    return the(objects, "ConfigMap", name)["data"]


@pytest.mark.parametrize("name", VALUE_SETS)
def test_helm_has_nothing_to_say_against_it(name):
    said = helm(
        "lint",
        str(CHART),
        "--strict",
        "--namespace",
        HOME,
        "--kube-version",
        KUBE_VERSION,
        values=VALUE_SETS[name],
    )
    assert "[ERROR]" not in said
    assert "[WARNING]" not in said


def test_every_value_is_in_the_schema_and_the_schema_allows_nothing_else():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())

    def compare(value, part, where):
        assert part.get("additionalProperties") is False, f"{where} takes anything"
        assert set(value) == set(part["properties"]) - {"global"}, where
        for key, inner in value.items():
            if "properties" in part["properties"][key]:
                compare(inner, part["properties"][key], f"{where}.{key}")

    compare(values, schema, "values")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"workflows": {"namespce": "x"}}, "at '/workflows': additional properties 'namespce' not allowed"),
        ({"publicURL": "x"}, "additional properties 'publicURL' not allowed"),
        ({"workflows": {"namespace": "Runs"}}, "at '/workflows/namespace': 'Runs' does not match pattern"),
        ({"workflows": {"namespace": ""}}, "at '/workflows/namespace': '' does not match pattern"),
        ({"brigade": {"namespace": "a_b"}}, "at '/brigade/namespace': 'a_b' does not match pattern"),
        ({"fallbackUrl": "brigade:7746"}, "at '/fallbackUrl': 'brigade:7746' does not match pattern"),
        ({"publicUrl": "ftp://x"}, "at '/publicUrl': 'ftp://x' does not match pattern"),
        ({"retention": {"days": 3}}, "at '/retention/days': minimum: got 3, want 7"),
        ({"retention": {"runs": -1}}, "at '/retention/runs': minimum: got -1, want 0"),
        ({"gateway": {"replicas": 0}}, "at '/gateway/replicas': minimum: got 0, want 1"),
        ({"controller": {"replicas": "2"}}, "at '/controller/replicas': got string, want integer"),
        (
            {"github": {"app": {"privateKey": "MIIE"}}},
            "at '/github/app/privateKey': 'MIIE' does not match pattern",
        ),
        ({"tokens": {"read": ["short"]}}, "at '/tokens/read/0': minLength: got 5, want 16"),
        ({"tokens": {"act": ["ada-lovelace=short"]}}, "at '/tokens/act/0': 'ada-lovelace=short' does not match"),
        ({"signIn": {"proxy": {"addresses": ["0.0.0.0/0"]}}}, "at '/signIn/proxy/addresses/0'"),
        ({"signIn": {"proxy": {"userHeader": "X_User"}}}, "at '/signIn/proxy/userHeader': 'X_User'"),
        ({"signIn": {"sessionHours": 0}}, "at '/signIn/sessionHours': exclusiveMinimum: got 0, want 0"),
        ({"logLevel": "loud"}, "at '/logLevel': value must be one of 'debug', 'info', 'warning', 'error'"),
        ({"workflows": {"argoInstanceID": "a b"}}, "at '/workflows/argoInstanceID': 'a b' does not match pattern"),
        ({"image": {"digest": "latest"}}, "at '/image/digest': 'latest' does not match pattern"),
        ({"ingress": {"enabled": True}}, "ingress.enabled needs ingress.host"),
        ({"github": {"app": {"id": "1"}}}, "github.app.id needs the App's private key"),
        ({"workflows": {"namespace": HOME}}, "allowSharedNamespace"),
        ({"brigade": {"namespace": HOME}}, "allowSharedNamespace"),
    ],
)
def test_a_bad_value_is_refused_and_the_message_says_which(values, said):
    with pytest.raises(Refused) as refused:
        rendered(values)
    assert said in str(refused.value)


def test_a_shared_namespace_is_possible_for_who_asks_for_it():
    objects = rendered(
        {"allowSharedNamespace": True, "workflows": {"namespace": HOME}, "brigade": {"namespace": HOME}}
    )
    names = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in objects]
    assert len(names) == len(set(names))
    assert {namespace for _, namespace, _ in names} == {HOME, None}


def test_the_charts_application_is_this_projects_version():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert chart["appVersion"] == project["version"]


def test_the_image_is_the_one_that_templates_are_rendered_with_unless_told():
    images = {
        container["image"]
        for one in deployments(by_default()).values()
        for container in pod_spec(one)["containers"]
    }
    assert images == {DEFAULT_IMAGE}


def test_the_charts_default_pipeline_equals_a_fresh_render(tmp_path):
    render(DEFAULT_PIPELINE, tmp_path, image="image-of-the-chart", namespace="namespace-of-the-workflows")
    assert [path.name for path in (CHART / "files").iterdir()] == ["default.yaml"]
    committed, fresh = ((folder / "default.yaml").read_text() for folder in (CHART / "files", tmp_path))
    assert committed == fresh, "run `make render` and commit charts/bridge/files/"


def test_the_default_pipeline_is_the_only_one_and_has_the_charts_image_and_namespace():
    (template,) = of_kind(rendered(everything()), "WorkflowTemplate")
    assert template["metadata"]["namespace"] == "runs"
    containers = [one["container"] for one in template["spec"]["templates"] if "container" in one]
    image = f"images.example.com:5000/ci/bridge@sha256:{'a' * 64}"
    assert {(one["image"], one["imagePullPolicy"]) for one in containers} == {(image, "Always")}
    assert template["spec"]["serviceAccountName"] == SERVICE_ACCOUNT
    assert pipeline_of(template) == read_file(DEFAULT_PIPELINE / "default.yaml")
    assert not of_kind(rendered(bare()), "WorkflowTemplate")


@pytest.mark.parametrize("name", VALUE_SETS)
def test_every_variable_of_the_chart_is_one_that_the_settings_know(name):
    objects = rendered(VALUE_SETS[name])
    known = {f"{PREFIX}{field.upper()}" for field in Settings.model_fields}
    for process in ("bridge-gateway", "bridge-controller"):
        assert set(config(objects, process)) <= known
        for container in pod_spec(deployments(objects)[process])["containers"]:
            assert {one["name"] for one in container.get("env", [])} <= known


def test_what_the_configuration_says_can_be_read_as_settings():
    objects = rendered(everything())
    for process in ("bridge-gateway", "bridge-controller"):
        told = {key.removeprefix(PREFIX).lower(): value for key, value in config(objects, process).items()}
        settings = Settings(**told)
        assert (settings.namespace, settings.brigade_namespace) == ("runs", "brigade")
        assert (settings.github_app_id, settings.log_level) == ("12345678", "debug")
    assert settings.lease_namespace == HOME
    assert (settings.retention_days, settings.retention_runs) == (14.5, 1000000)
    assert settings.argo_instance_id == "team-a"
    assert (settings.sweep_minutes, settings.webhook) == (2.5, "https://hooks.example.com/events/github")


def test_steps_are_told_where_brigade_and_the_gateway_are():
    objects = rendered(everything())
    step = the(objects, "ConfigMap", "bridge-step")
    assert step["metadata"]["namespace"] == "runs"
    service = the(objects, "Service", "bridge-gateway")
    (port,) = service["spec"]["ports"]
    assert step["data"] == {
        "BRIDGE_BRIGADE_NAMESPACE": "brigade",
        "BRIDGE_GATEWAY_URL": f"http://bridge-gateway.{HOME}.svc:{port['port']}",
    }


def test_nothing_secret_is_anywhere_but_in_secrets():
    objects = rendered(everything())
    assert "secret-of-the-app" in _decoded(objects)["bridge-github-app/private-key"]
    others = yaml.safe_dump([one for one in objects if one["kind"] != "Secret"])
    assert re.findall(r"secret-(?:of|token)\S*", others) == []
    for one in deployments(objects).values():
        for container in pod_spec(one)["containers"]:
            assert all("value" not in variable for variable in container.get("env", []))


def test_endpoints_of_notifications_are_a_secret_that_the_controller_alone_has():
    objects = rendered({"notifications": {"existingSecret": "endpoints"}})
    told = config(objects, "bridge-controller")
    assert told["BRIDGE_NOTIFY_FILE"] == "/var/run/secrets/notifications/endpoints.yaml"
    assert not any(key.startswith("BRIDGE_NOTIFY") for key in config(objects, "bridge-gateway"))
    pods = {name: pod_spec(one) for name, one in deployments(objects).items()}
    mounted = {
        name: [volume["secret"]["secretName"] for volume in pod["volumes"] if volume["name"] == "notifications"]
        for name, pod in pods.items()
    }
    assert mounted == {"bridge-controller": ["endpoints"], "bridge-gateway": []}
    assert "BRIDGE_NOTIFY_FILE" not in config(rendered(), "bridge-controller")


def _decoded(objects):
    found = {}
    for secret in of_kind(objects, "Secret"):
        for key, value in (secret.get("data") or {}).items():
            found[f"{secret['metadata']['name']}/{key}"] = base64.b64decode(value).decode()
    return found


def test_secrets_of_the_values_have_their_own_secret_and_named_ones_are_only_referred_to():
    assert set(_decoded(rendered(everything()))) == {
        "bridge-tokens/read-tokens",
        "bridge-tokens/act-tokens",
        "bridge-tokens/event-tokens",
        "bridge-tokens/default-shared-secret",
        "bridge-github-app/private-key",
        "bridge-github-app/webhook-secret",
    }
    objects = rendered(bare())
    assert not of_kind(objects, "Secret")
    gateway = pod_spec(deployments(objects)["bridge-gateway"])
    referred = {one["valueFrom"]["secretKeyRef"]["name"] for one in gateway["containers"][0]["env"]}
    assert referred == {"my-tokens", "my-app"}
    assert [one["secret"]["secretName"] for one in gateway["volumes"] if "secret" in one] == ["my-app"]


def test_the_controller_holds_no_token_that_people_use():
    container = pod_spec(deployments(rendered(everything()))["bridge-controller"])["containers"][0]
    assert "env" not in container
    assert container["envFrom"] == [{"configMapRef": {"name": "bridge-controller"}}]


@pytest.mark.parametrize(
    ("values", "rolled"),
    [
        ({"publicUrl": "https://other.example.com"}, {"bridge-gateway", "bridge-controller"}),
        ({"fallbackUrl": "https://other.example.com"}, {"bridge-gateway"}),
        ({"retention": {"days": 60}}, {"bridge-controller"}),
        ({"tokens": {"read": ["another-token-to-read"]}}, {"bridge-gateway"}),
        ({"networkPolicies": {"enabled": False}}, set()),
        ({"service": {"port": 81}}, set()),
    ],
)
def test_pods_are_rolled_when_what_they_read_changed_and_else_not(values, rolled):
    before, after = deployments(by_default()), deployments(rendered(values))
    assert {
        name for name in before if before[name]["spec"]["template"] != after[name]["spec"]["template"]
    } == rolled


def test_another_key_of_the_app_rolls_both():
    app = everything()["github"]["app"]
    before = deployments(rendered({"github": {"app": app}}))
    changed = {**app, "privateKey": app["privateKey"].replace("secret", "other")}
    after = deployments(rendered({"github": {"app": changed}}))
    assert all(before[name]["spec"]["template"] != after[name]["spec"]["template"] for name in before)


def test_two_of_each_process_run_that_are_probed_and_bounded():
    for one in deployments(by_default()).values():
        assert one["spec"]["replicas"] == 2
        (container,) = pod_spec(one)["containers"]
        assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container)
        assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert "memory" in container["resources"]["limits"]
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}
        (budget,) = [
            budget["spec"]
            for budget in of_kind(by_default(), "PodDisruptionBudget")
            if budget["spec"]["selector"] == one["spec"]["selector"]
        ]
        assert budget["maxUnavailable"] == 1


def test_probes_and_services_ask_on_the_ports_that_the_processes_are_told():
    objects = by_default()
    for process, key in (("bridge-gateway", "BRIDGE_PORT"), ("bridge-controller", "BRIDGE_CONTROLLER_PORT")):
        (container,) = pod_spec(deployments(objects)[process])["containers"]
        (port,) = container["ports"]
        assert str(port["containerPort"]) == config(objects, process)[key]
        assert {
            container[probe]["httpGet"]["port"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")
        } == {port["name"]}
    (port,) = the(objects, "Service", "bridge-gateway")["spec"]["ports"]
    assert port["targetPort"] == "http"


def paths(values):
    (ingress,) = of_kind(rendered(values), "Ingress")
    (rule,) = ingress["spec"]["rules"]
    return {one["path"] for one in rule["http"]["paths"]}


def test_the_ingress_lets_hooks_in_and_nothing_else_unless_told():
    host = {"enabled": True, "host": "bridge.example.com"}
    assert paths({"ingress": host}) == HOOKS
    with_pages = paths({"ingress": {**host, "pages": True}})
    assert with_pages == HOOKS | PAGES
    assert not of_kind(by_default(), "Ingress")


def test_every_page_and_no_inner_route_is_below_a_path_of_the_ingress():
    known = {"hooks", "api", "pages", "page_acts", "signin", "themes", "badges", "static"}
    with_pages = {"ingress": {"enabled": True, "host": "bridge.example.com", "pages": True}}
    (ingress,) = of_kind(rendered(with_pages), "Ingress")
    let_in = [(one["path"], one["pathType"]) for one in ingress["spec"]["rules"][0]["http"]["paths"]]
    for rule in a_world().app.url_map.iter_rules():
        through = any(
            rule.rule == path or (kind == "Prefix" and rule.rule.startswith(f"{path}/")) for path, kind in let_in
        )
        assert through is (rule.endpoint.partition(".")[0] in known), rule


def test_a_proxy_is_told_to_the_gateway_as_its_settings_read_it(monkeypatch):
    for name, value in config(rendered(everything()), "bridge-gateway").items():
        monkeypatch.setenv(name, value)
    loaded = settings.load()
    assert [str(one) for one in loaded.proxy_addresses] == ["10.1.2.3/32", "fd00::/64"]
    assert (loaded.proxy_user_header, loaded.proxy_groups_header) == ("X-Auth-Request-Email", "X-Auth-Request-Groups")  # fmt: skip
    assert loaded.proxy_act_users == ("ada@example.com", "grace@example.com")
    assert loaded.proxy_act_groups == ("acme:builders", "night shift")
    assert (loaded.session_hours, loaded.badges) == (8.5, False)
    assert not [name for name in config(by_default(), "bridge-gateway") if "PROXY" in name]


def test_a_path_of_the_root_is_only_itself():
    # As a prefix it would let in /internal, /metrics and whatever comes later.
    (ingress,) = of_kind(rendered(everything()), "Ingress")
    types = {one["path"]: one["pathType"] for one in ingress["spec"]["rules"][0]["http"]["paths"]}
    assert types["/"] == "Exact"


def egress_ports(objects, name):
    rules = the(objects, "NetworkPolicy", name)["spec"]["egress"]
    return {port["port"] for rule in rules for port in rule["ports"]}


def test_the_gateway_may_reach_what_it_is_told_to_reach():
    assert egress_ports(by_default(), "bridge-gateway") == {53, 443, 6443}
    assert egress_ports(rendered(everything()), "bridge-gateway") == {53, 443, 6443, 7746, 3128}
    assert egress_ports(rendered(everything()), "bridge-controller") == {53, 443, 6443, 3128}
    plain = rendered(
        {"fallbackUrl": "http://brigade.example.com/events", "github": {"apiUrl": "https://git:8443/api/v3"}}
    )
    assert egress_ports(plain, "bridge-gateway") == {53, 80, 443, 6443, 8443}


def test_the_controllers_lease_is_the_one_that_its_role_names():
    named = {
        name
        for role in of_kind(by_default(), "Role")
        for rule in role["rules"]
        for name in rule.get("resourceNames", [])
    }
    assert named == {LEASE_NAME}


def test_the_role_for_durable_jobs_is_the_one_of_js():
    (role,) = [one for one in of_kind(rendered(everything()), "Role") if "durable" in one["metadata"]["name"]]
    js = next(yaml.safe_load_all((ROOT / "js/rbac.yaml").read_text()))
    assert role["rules"] == js["rules"]
    assert role["metadata"]["namespace"] == "brigade"
    assert not [one for one in of_kind(by_default(), "Role") if "durable" in one["metadata"]["name"]]
