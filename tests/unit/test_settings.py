from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from pydantic_settings import SettingsConfigDict

from gateway.settings import GatewaySettings
from retrieval_svc.settings import RetrievalSettings
from twotower.errors import SettingsError
from twotower.settings import ModelServiceSettings, ProcessSettings
from user_tower_svc.settings import UserTowerSettings

KINDS = [UserTowerSettings, RetrievalSettings]
Kind = type[ModelServiceSettings]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("USER_TOWER_", "RETRIEVAL_", "TWOTOWER_")):
            monkeypatch.delenv(name)


def load(kind: Kind, *arguments: str) -> ModelServiceSettings:
    return kind.load("the program", list(arguments))


def refusal(kind: Kind, *arguments: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(kind, *arguments)
    return str(caught.value)


def variable(kind: Kind, name: str) -> str:
    alias = kind.model_fields[name].validation_alias
    return str(alias or f"{kind.model_config['env_prefix']}{name}").upper()


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


VALUES = {
    "revision": ("abc", "def"),
    "host": ("0.0.0.0", "::1"),  # noqa: S104 - read, not listened on
    "log_level": ("debug", "error"),
    "port": ("0", "65535"),
    "metrics_port": ("0", "1"),
    "bundles": ("a", "/b"),
    "cache": ("c", "/d"),
    "workers": ("1", "64"),
    "poll_seconds": ("0.5", "3"),
    "keep_seconds": ("0.25", "7"),
    "drain_seconds": ("0.125", "9"),
    "max_message_bytes": ("65536", "1073741824"),
    "max_connection_age_seconds": ("1", "5"),
}
"""For every setting, two values that are allowed and not its default."""
COMMANDS = {"command", "health"}
"""What to do, which only the command line says."""


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_is_tried(kind: Kind) -> None:
    assert VALUES.keys() | COMMANDS == kind.model_fields.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_line_says_what_to_do(kind: Kind) -> None:
    assert (load(kind).command, load(kind).health) == ("serve", False)
    assert load(kind, "doctor").command == "doctor"
    assert load(kind, "--health").health
    assert refusal(kind, "serv") == "command='serv': Input should be 'serve' or 'doctor'"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", VALUES)
def test_the_command_line_goes_over_the_environment(
    kind: Kind, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = getattr(load(kind), name)
    first, second = (type(default)(value) for value in VALUES[name])
    assert default not in (first, second)
    monkeypatch.setenv(variable(kind, name), VALUES[name][0])
    assert getattr(load(kind), name) == first
    assert getattr(load(kind, flag(name), VALUES[name][1]), name) == second


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", VALUES)
def test_an_empty_variable_is_an_absent_one(
    kind: Kind, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = load(kind)
    monkeypatch.setenv(variable(kind, name), "")
    assert load(kind) == default


def test_each_service_has_its_own_port() -> None:
    ports = [(load(kind).port, load(kind).metrics_port) for kind in KINDS]
    assert ports == [(50051, 9151), (50052, 9152)]


def test_services_do_not_read_each_others_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRIEVAL_PORT", "1")
    assert load(UserTowerSettings).port == 50051


@pytest.mark.parametrize("kind", KINDS)
def test_all_processes_share_the_folder_of_bundles(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOTOWER_BUNDLES", "/models")
    assert load(kind).bundles == Path("/models")


@pytest.mark.parametrize("kind", KINDS)
def test_help_names_every_variable_and_says_what_it_is(
    kind: Kind, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        load(kind, "--help")
    assert caught.value.code == 0
    words = re.sub(r"\s+", " ", capsys.readouterr().out)
    for name, field in kind.model_fields.items():
        if name not in COMMANDS:
            assert re.search(rf"\[env: [^]]*\b{variable(kind, name)}\b", words)
            assert flag(name) in words
        assert str(field.description) in words.replace("- ", "-")


def test_bundles_lie_in_a_folder_or_in_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("s3://movies", "s3://movies.example/models/v1"):
        monkeypatch.setenv("TWOTOWER_BUNDLES", address)
        settings = load(UserTowerSettings)
        assert settings.bundles == address
        with pytest.raises(SettingsError, match=f"TWOTOWER_BUNDLES={address}: only services read"):
            _ = settings.folder
    for mistake in ("s3://Movies", "S3://movies", "s3://ab", "s3:/movies", "s3:movies"):
        monkeypatch.setenv("TWOTOWER_BUNDLES", mistake)
        assert refusal(UserTowerSettings).endswith(
            "allowed is a folder, s3://bucket or s3://bucket/prefix"
        )


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("port", "http", "valid integer"),
        ("port", "-1", "greater than or equal to 0"),
        ("port", "65536", "less than or equal to 65535"),
        ("metrics_port", "1.5", "valid integer"),
        ("workers", "0", "greater than or equal to 1"),
        ("workers", "65", "less than or equal to 64"),
        ("poll_seconds", "0", "greater than 0"),
        ("keep_seconds", "inf", "less than or equal to 86400"),
        ("drain_seconds", "nan", "less than or equal to 86400"),
        ("max_message_bytes", "1", "greater than or equal to 65536"),
    ],
)
def test_a_value_that_is_not_allowed(
    name: str, value: str, allowed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert re.match(rf"{name}='{value}': .*{allowed}", refusal(UserTowerSettings, flag(name), value))
    monkeypatch.setenv(f"USER_TOWER_{name.upper()}", value)
    assert re.match(rf"USER_TOWER_{name.upper()}='{value}': .*{allowed}", refusal(UserTowerSettings))


def test_every_fault_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRIEVAL_PORT", "x")
    monkeypatch.setenv("RETRIEVAL_LOG_LEVEL", "loud")
    message = refusal(RetrievalSettings)
    assert "RETRIEVAL_PORT='x': " in message
    assert "RETRIEVAL_LOG_LEVEL='loud': Input should be 'debug', 'info', 'warning' or 'error'" in message


class ListSettings(ProcessSettings):
    """A process that has a setting of several values."""

    model_config = SettingsConfigDict(env_prefix="USER_TOWER_")

    origins: tuple[str, ...] = ()


def test_a_list_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER_TOWER_ORIGINS", '["a", "b"]')
    assert ListSettings.load("the program", []).origins == ("a", "b")
    monkeypatch.setenv("USER_TOWER_ORIGINS", "a, b")
    with pytest.raises(SettingsError, match="USER_TOWER_ORIGINS='a, b' is not JSON: Expecting value"):
        ListSettings.load("the program", [])


TARGETS = "allowed are host:port, dns:///host:port"
ORIGINS = "allowed are scheme://host and scheme://host:port"


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        *(
            (name, value, TARGETS)
            for name in ("user_tower", "retrieval")
            for value in (
                "a",
                "a:",
                "a:x",
                ":1",
                "a b:1",
                "http://a:1",
                "unix:/a",
                "ipv4:a:1",
                "ipv4:1.2.3.4:5,",
            )
        ),
        ("read_seconds", "0", "greater than 0"),
        ("read_seconds", "inf", "less than or equal to 86400"),
        ("max_body_bytes", "1e6", "valid integer"),
        ("cors_origins", '["https://a.example/"]', ORIGINS),
        ("cors_origins", '["https://a.example", "b.example"]', ORIGINS),
        ("cors_origins", "https://a.example", "is not JSON"),
    ],
)
def test_a_value_that_is_not_allowed_of_the_gateway(
    name: str, value: str, allowed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"GATEWAY_{name.upper()}", value)
    with pytest.raises(SettingsError) as caught:
        GatewaySettings.load("the program", [])
    assert str(caught.value).startswith(f"GATEWAY_{name.upper()}=")
    assert allowed in str(caught.value)


@pytest.mark.parametrize(
    "target",
    [
        "a:1",
        "user_tower_svc:50051",
        "dns:///a-b.example:50051",
        "dns:a:1",
        "dns://8.8.8.8/a:1",
        "dns:///[::1]:1",
        "[::1]:1",
        "ipv4:1.2.3.4:5",
        "ipv4:1.2.3.4:5,1.2.3.5:5",
        "ipv6:[::1]:1,[::2]:1",
    ],
)
def test_a_target_that_is_allowed(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_RETRIEVAL", target)
    monkeypatch.setenv("GATEWAY_CORS_ORIGINS", '["*", "https://a.example:8443"]')
    assert GatewaySettings.load("the program", []).retrieval == target


def test_an_unknown_argument_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load(UserTowerSettings, "--prot", "1")
    assert caught.value.code == 2
    assert "the program: error: unrecognized arguments: --prot" in capsys.readouterr().err


def test_settings_do_not_change() -> None:
    settings = load(UserTowerSettings)
    with pytest.raises(ValueError, match="frozen"):
        setattr(settings, "port", 1)  # noqa: B010 - a type checker refuses the plain statement
