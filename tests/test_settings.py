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
