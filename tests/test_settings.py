"""The settings' tree: the file, the variables, the flags, in rising order; a fault is one line that names it."""

from pathlib import Path

import pytest

from app.errors import SettingsError
from app.secret import REVEALED
from app.settings import Settings, load_settings, printed


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOLLGATE_HOME", str(tmp_path / "home"))


def test_flags_win_over_variables_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tollgate.yaml").write_text("api: {port: 1, host: 0.0.0.0, drain_s: 5}", encoding="utf-8")
    assert load_settings().api.port == 1
    monkeypatch.setenv("TOLLGATE_API__PORT", "2")
    assert load_settings().api.port == 2
    settings = load_settings({"api": {"port": 3}})
    assert (settings.api.port, settings.api.host, settings.api.drain_s) == (3, "0.0.0.0", 5)
    assert settings.home == tmp_path / "home"


def test_what_is_printed_can_be_read_again(tmp_path: Path) -> None:
    settings = load_settings({"api": {"port": 7}})
    path = tmp_path / "other.yaml"
    path.write_text(printed(settings), encoding="utf-8")
    assert load_settings(file=path) == settings


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("api: {prot: 1}", "api.prot is no setting"),
        ("colour: red", "colour is no setting"),
        ("api: {port: eighty}", "api.port: Input should be a valid integer"),
        ("engine: {slots: 0}", "engine.slots: "),
        ("api: [", "cannot be read"),
        ("log_level: loud", "log_level: "),
    ],
)
def test_a_fault_in_the_file_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "tollgate.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert said in refused.value.message
    assert "\n" not in refused.value.message


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("TOLLGATE_API__PROT", "1", "TOLLGATE_API__PROT sets nothing"),
        ("TOLLGATE_PORT", "1", "TOLLGATE_PORT sets nothing"),
        ("TOLLGATE_API__PORT", "x", "api.port"),
        ("TOLLGATE_CONFIG", "none.yaml", "no settings file none.yaml"),
    ],
)
def test_a_fault_in_a_variable_is_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert said in refused.value.message


def test_secrets_are_shown_nowhere_and_a_worker_process_still_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLGATE_METERING__DATABASE_URL", "postgresql://toll:hushdb@db:5432/books?password=hushquery")
    monkeypatch.setenv("TOLLGATE_LIMITS__REDIS_URL", "redis://:hushredis@cache:6379/2")
    settings = load_settings()
    for text in (printed(settings), repr(settings), str(settings.model_dump())):
        assert "hush" not in text
    assert "postgresql://**********@db:5432/books?**********" in printed(settings)
    assert "redis://**********@cache:6379/2" in printed(settings)
    again = Settings(**settings.model_dump(mode="json", context=REVEALED))
    assert again.metering.opened_url == "postgresql://toll:hushdb@db:5432/books?password=hushquery"
    assert again == settings


@pytest.mark.parametrize("text", ["limits: {redis_url: [hush]}", "metering: {database_url: {password: hush}}"])
def test_a_fault_in_a_secret_does_not_repeat_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "tollgate.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert "hush" not in refused.value.message


def test_a_secret_comes_from_the_file_that_a_variable_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "database-url"
    secret.write_text("postgresql://tollgate:hush@db/tollgate\n", encoding="utf-8")
    monkeypatch.setenv("TOLLGATE_METERING__DATABASE_URL_FILE", str(secret))
    settings = load_settings()
    assert settings.metering.opened_url == "postgresql://tollgate:hush@db/tollgate"
    assert "hush" not in printed(settings)
    monkeypatch.setenv("TOLLGATE_METERING__DATABASE_URL", "postgresql://other/one")
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert "are both set; keep one" in refused.value.message


def test_a_variable_that_names_a_missing_file_is_a_fault_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLGATE_LIMITS__REDIS_URL_FILE", "/nowhere/redis-url")
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert "TOLLGATE_LIMITS__REDIS_URL_FILE names /nowhere/redis-url" in refused.value.message
    monkeypatch.delenv("TOLLGATE_LIMITS__REDIS_URL_FILE")
    monkeypatch.setenv("TOLLGATE_LIMITS__NOTHING_FILE", "/nowhere/nothing")
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert "TOLLGATE_LIMITS__NOTHING_FILE sets nothing" in refused.value.message
