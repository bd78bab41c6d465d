"""Settings from the environment, and the page about them."""

from pathlib import Path

import pytest

from bridge import settings
from bridge.commands import settings_page
from bridge.errors import BadSettings

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in settings.Settings.model_fields:
        monkeypatch.delenv(f"BRIDGE_{name.upper()}", raising=False)


def test_the_page_about_settings_is_what_bridgectl_settings_prints():
    assert PAGE.read_text() == settings_page(), "run: bridgectl settings > docs/settings.md"


def test_every_setting_says_what_it_means():
    assert all(field.description for field in settings.Settings.model_fields.values())


def test_what_is_given_wins_over_the_environment_which_wins_over_the_default(monkeypatch):
    assert settings.load().port == 8080
    monkeypatch.setenv("BRIDGE_PORT", "9000")
    assert settings.load().port == 9000
    assert settings.load(port=1).port == 1
    assert settings.load(port=None).port == 9000


def test_a_wrong_setting_is_named_and_its_value_is_not_shown(monkeypatch):
    monkeypatch.setenv("BRIDGE_PORT", "hunter2")
    monkeypatch.setenv("BRIDGE_JOBS", "swordfish")
    with pytest.raises(BadSettings, match=r"BRIDGE_PORT.*BRIDGE_JOBS") as caught:
        settings.load()
    assert "hunter2" not in str(caught.value)
    assert "swordfish" not in str(caught.value)


def test_an_address_has_to_be_http_and_loses_its_last_slash():
    assert settings.load(url="http://here/").url == "http://here"
    with pytest.raises(BadSettings, match=r"BRIDGE_URL.*https:// or http://"):
        settings.load(url="here:8080")


def test_tokens_are_separated_by_commas_and_are_not_in_the_repr(monkeypatch):
    monkeypatch.setenv("BRIDGE_ACT_TOKENS", " one-token, two-token ,")
    loaded = settings.load()
    assert [token.get_secret_value() for token in loaded.act_tokens] == ["one-token", "two-token"]
    assert "one-token" not in repr(loaded)


def test_the_state_is_kept_beside_the_projects_unless_told(tmp_path):
    assert settings.load(projects_dir=tmp_path).state == tmp_path.resolve() / ".bridge"
    assert settings.load(projects_dir=tmp_path, state_dir=tmp_path / "s").state == tmp_path.resolve() / "s"


def test_retention_is_never_below_the_window_in_which_repeats_are_recognised(monkeypatch):
    monkeypatch.setenv("BRIDGE_RETENTION_DAYS", "6")
    with pytest.raises(BadSettings, match="BRIDGE_RETENTION_DAYS"):
        settings.load()


def test_retention_by_number_may_be_none_and_never_below(monkeypatch):
    assert settings.load().retention_runs == 0
    monkeypatch.setenv("BRIDGE_RETENTION_RUNS", "-1")
    with pytest.raises(BadSettings, match="BRIDGE_RETENTION_RUNS"):
        settings.load()


def test_the_cluster_is_the_connections_own_unless_told(monkeypatch):
    loaded = settings.load()
    assert (loaded.namespace, loaded.brigade_namespace, loaded.lease_namespace) == ("", "", "")
    assert (loaded.kubeconfig, loaded.kube_context) == (None, "")
    monkeypatch.setenv("BRIDGE_NAMESPACE", "bridge-runs")
    monkeypatch.setenv("BRIDGE_KUBECONFIG", "/etc/kubeconfig")
    loaded = settings.load()
    assert loaded.namespace == "bridge-runs"
    assert loaded.kubeconfig == Path("/etc/kubeconfig")


def test_brigades_namespace_is_the_setting_then_brigs_own_variable_then_default():
    from bridge.wiring.places import brigade_namespace

    assert brigade_namespace(settings.load().brigade_namespace, {}) == "default"
    assert brigade_namespace(settings.load().brigade_namespace, {"BRIGADE_NAMESPACE": "brigade"}) == "brigade"
    assert (
        brigade_namespace(
            settings.load(brigade_namespace="ci").brigade_namespace, {"BRIGADE_NAMESPACE": "brigade"}
        )
        == "ci"
    )


def test_a_fallback_has_to_be_http_and_loses_its_last_slash(monkeypatch):
    monkeypatch.setenv("BRIDGE_FALLBACK_URL", "http://brigade-github-app:80/")
    assert settings.load().fallback_url == "http://brigade-github-app:80"
    monkeypatch.setenv("BRIDGE_FALLBACK_URL", "brigade-github-app")
    with pytest.raises(BadSettings, match="BRIDGE_FALLBACK_URL"):
        settings.load()


def test_the_controller_has_its_own_port(monkeypatch):
    loaded = settings.load()
    assert loaded.controller_port == 8081
    monkeypatch.setenv("BRIDGE_CONTROLLER_PORT", "65536")
    with pytest.raises(BadSettings, match="BRIDGE_CONTROLLER_PORT"):
        settings.load()


def test_the_apps_key_is_a_file_and_its_webhook_secret_is_not_in_the_repr(monkeypatch):
    monkeypatch.setenv("BRIDGE_GITHUB_APP_ID", "12345")
    monkeypatch.setenv("BRIDGE_GITHUB_APP_KEY_FILE", "/var/run/secrets/github-app/private-key.pem")
    monkeypatch.setenv("BRIDGE_GITHUB_APP_WEBHOOK_SECRET", "hunter2")
    monkeypatch.setenv("BRIDGE_DEFAULT_SHARED_SECRET", "swordfish")
    loaded = settings.load()
    assert loaded.github_app_id == "12345"
    assert loaded.github_app_key_file == Path("/var/run/secrets/github-app/private-key.pem")
    assert "hunter2" not in repr(loaded)
    assert "swordfish" not in repr(loaded)


def test_a_proxys_addresses_are_its_own_and_not_everybodys(monkeypatch):
    monkeypatch.setenv("BRIDGE_PROXY_ADDRESSES", "10.1.2.3, 10.2.0.0/16,fd00::/64")
    assert [str(one) for one in settings.load().proxy_addresses] == ["10.1.2.3/32", "10.2.0.0/16", "fd00::/64"]
    for wrong in ("0.0.0.0/0", "10.1.2.3,::/0", "proxy.example.com", "10.1.2.3/33"):
        monkeypatch.setenv("BRIDGE_PROXY_ADDRESSES", wrong)
        with pytest.raises(BadSettings, match="BRIDGE_PROXY_ADDRESSES"):
            settings.load()


def test_a_header_has_a_name_that_a_header_can_have(monkeypatch):
    monkeypatch.setenv("BRIDGE_PROXY_USER_HEADER", "X_Forwarded_User")
    with pytest.raises(BadSettings, match="BRIDGE_PROXY_USER_HEADER"):
        settings.load()
