"""The configuration is read from file, environment and command line, and refuses what it does not understand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from service.config import Config, duration_seconds, find_config_file, find_static_folder, load_config
from service.config.reading import CLIENT_VARIABLES
from service.errors import ConfigurationError
from tests.support.processes import started


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "corral.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path | None = None, environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigurationError) as raised:
        load_config(path, environ)
    text = str(raised.value)
    assert "\n" not in text
    return text


def value_of(config: Config, key: str) -> Any:
    value: Any = config
    for step in key.split("."):
        value = value[int(step)] if step.isdigit() else getattr(value, step)
    return value


def test_without_a_file_the_defaults_apply(folder: Path) -> None:
    assert load_config(None, {}) == Config()


def test_a_config_file_in_the_working_directory_is_read(folder: Path) -> None:
    (folder / "config.toml").write_text("[server]\nport = 8123\n", encoding="utf-8")
    assert load_config(None, {}).server.port == 8123


def test_a_file_that_is_given_wins_over_the_one_in_the_working_directory(folder: Path) -> None:
    (folder / "config.toml").write_text("[server]\nport = 8123\n", encoding="utf-8")
    given = write(folder, "[server]\nport = 8124\n")
    assert find_config_file(given) == given
    assert load_config(given, {}).server.port == 8124


def test_environment_wins_over_the_file_and_options_over_both(folder: Path) -> None:
    path = write(folder, '[server]\nhost = "a"\nport = 1\ndrain_seconds = 7\n')
    environ = {"CORRAL_SERVER__HOST": "b", "CORRAL_SERVER__PORT": "2"}
    server = load_config(path, environ, {"server.port": 3, "server.host": None}).server
    assert (server.host, server.port, server.drain_seconds) == (("b",), 3, 7)


def test_what_a_command_wants_wins_over_the_file_alone(folder: Path) -> None:
    path = write(folder, '[server]\nhost = "a"\n')
    wanted = {"server.host": "localhost"}
    assert load_config(path, {}, instead_of_file=wanted).server.host == ("127.0.0.1", "::1")
    for environ, options in (({"CORRAL_SERVER__HOST": "b"}, {}), ({}, {"server.host": "b"})):
        assert load_config(path, environ, options, instead_of_file=wanted).server.host == ("b",)


@pytest.mark.parametrize(
    ("variable", "value", "key", "expected"),
    [
        ("OLLAMA_URL", "http://box:11434/api/generate", "backends.0.url", "http://box:11434"),
        ("OLLAMA_URL", "http://box:11434/", "backends.0.url", "http://box:11434"),
        ("OLLAMA_URL", "https://host/ollama/api/generate", "backends.0.url", "https://host/ollama"),
        ("OLLAMA_BASE_URL", "http://box:11434", "backends.0.url", "http://box:11434"),
        ("OLLAMA_MODEL", "qwen3:8b", "queue.default_model", "qwen3:8b"),
        ("OLLAMA_POLL_INTERVAL", "2.5", "database.poll_interval_seconds", 2.5),
        ("OLLAMA_PROXY_DB", "/srv/q.db", "database.path", Path("/srv/q.db")),
        ("OLLAMA_PROXY_QUIET", "0", "server.access_log", False),
        ("DATABASE_URL", "postgresql://u:p@h/corral", "database.url", "postgresql://u:p@h/corral"),
        ("DATABASE_URL", "postgresql+asyncpg://u:p%2F@h:1/d", "database.url", "postgresql://u:p%2F@h:1/d"),
        ("DATABASE_URL", "postgresql+psycopg2://h/d?a=b&c=1", "database.url", "postgresql://h/d?a=b&c=1"),
        (
            "DATABASE_URL",
            "postgresql://me@x:p@h1,[::1]:5,h3:/d",
            "database.url",
            "postgresql://me@x:p@h1,[::1]:5,h3:/d",
        ),
        ("DATABASE_URL", "postgresql:///d?host=/run&user=a", "database.url", "postgresql:///d?host=/run&user=a"),
        ("DATABASE_URL", "postgresql+asyncpg://h/d?ssl=require", "database.url", "postgresql://h/d?sslmode=require"),
        ("DATABASE_URL", "postgresql+asyncpg://h/d?ssl=true", "database.url", "postgresql://h/d?sslmode=require"),
        ("DATABASE_URL", "postgres://h/d?ssl=x", "database.url", "postgres://h/d?ssl=x"),
        ("DATABASE_URL", "sqlite+aiosqlite:///data/q.db", "database.path", Path("data/q.db")),
        ("DATABASE_URL", "sqlite:////srv/q.db", "database.path", Path("/srv/q.db")),
        ("DATABASE_URL", "sqlite:////srv/q.db", "database.url", ""),
        ("SECRET_KEY", "s3cret", "auth.secret_key", "s3cret"),
        ("DEMO_ADMIN_KEY", "admin-key", "auth.demo_admin_key", "admin-key"),
        ("DEMO_USER_KEY", "user-key", "auth.demo_user_key", "user-key"),
        ("ACCESS_TOKEN_EXPIRE_MINUTES", "15", "auth.token_minutes", 15),
        ("LOG_LEVEL", " debug", "log.level", "DEBUG"),
        ("CORRAL_LOG__LEVEL", "ERROR", "log.level", "ERROR"),
        ("CORRAL_SERVER__HOST", "127.0.0.1", "server.host", ("127.0.0.1",)),
        ("CORRAL_SERVER__HOST", "10.0.0.1, [fd00::1]", "server.host", ("10.0.0.1", "fd00::1")),
        ("CORRAL_SERVER__HOST", '["10.0.0.1", "fd00::1"]', "server.host", ("10.0.0.1", "fd00::1")),
        ("CORRAL_SERVER__HOST", "[::1]", "server.host", ("::1",)),
        ("CORRAL_SERVER__HOST", "localhost,::1", "server.host", ("127.0.0.1", "::1")),
        ("CORRAL_SERVER__HOST", "LocalHost", "server.host", ("127.0.0.1", "::1")),
        ("CORRAL_SERVER__HOST", "*", "server.host", ("0.0.0.0", "::")),
        ("CORRAL_SERVER", '{"host": ["a", "b"]}', "server.host", ("a", "b")),
        ("CORRAL_SERVER__PORT", "8001", "server.port", 8001),
        ("corral_server__port", "8001", "server.port", 8001),
        ("CORRAL_SERVER", '{"port": 8001}', "server.port", 8001),
        ("CORRAL_SERVER__MAX_BODY", "2 MiB", "server.max_body", 2 << 20),
        ("CORRAL_SERVER__ALLOWED_ORIGINS", '["https://a.example"]', "server.allowed_origins", ("https://a.example",)),
        (
            "CORRAL_SERVER__ALLOWED_ORIGINS",
            '["HTTPS://a.example:443", "http://[::80]:80", "http://a.example:443", "http://[::80]"]',
            "server.allowed_origins",
            ("https://a.example", "http://[::80]", "http://a.example:443", "http://[::80]"),
        ),
        ("CORRAL_SERVER__ALLOWED_HOSTS", '["A.Example.", ".b"]', "server.allowed_hosts", ("a.example", ".b")),
        ("CORRAL_METRICS__PUBLIC", "true", "metrics.public", True),
        ("CORRAL_BACKENDS", '[{"name": "box", "url": "http://box"}]', "backends.0.name", "box"),
        ("CORRAL_QUEUE__HOLD_BUSY", "false", "queue.hold_busy", False),
    ],
)
def test_an_environment_variable_sets_its_key(
    folder: Path, variable: str, value: str, key: str, expected: object
) -> None:
    assert value_of(load_config(None, {variable: value}), key) == expected


def test_the_variables_of_the_client_are_passed_over_and_no_others(folder: Path) -> None:
    assert load_config(None, dict.fromkeys(CLIENT_VARIABLES, "x")) == Config()
    for name in ("CORRAL_URLS", "CORRAL_KEYS", "CORRAL_DEBUGS", "CORRAL_URL__HOST", "corral_url"):
        assert f"{name}: there is no such setting" in refusal(environ={name: "x"})


def test_ollama_url_replaces_the_whole_backend_list(folder: Path) -> None:
    path = write(folder, '[[backends]]\nname = "a"\nurl = "http://a"\n[[backends]]\nname = "b"\nurl = "http://b"\n')
    assert [backend.name for backend in load_config(path, {}).backends] == ["a", "b"]
    config = load_config(path, {"OLLAMA_URL": "http://c:1"})
    assert [(backend.name, backend.url) for backend in config.backends] == [("ollama", "http://c:1")]


def test_a_prefixed_variable_wins_over_the_same_key_by_its_other_name(folder: Path) -> None:
    environ = {"CORRAL_QUEUE__DEFAULT_MODEL": "a", "OLLAMA_MODEL": "b"}
    assert load_config(None, environ).queue.default_model == "a"


def test_a_variable_set_to_nothing_is_not_set(folder: Path) -> None:
    environ = dict.fromkeys(("OLLAMA_URL", "OLLAMA_MODEL", "OLLAMA_PROXY_QUIET", "DATABASE_URL", "SECRET_KEY"), "")
    assert load_config(None, environ) == Config()


def test_models_are_read_from_the_file_and_as_json(folder: Path) -> None:
    path = write(folder, '[models."llama3.2:1b"]\nparallel = 2\nkeep_alive = "1h30m"\ndefault_keep_alive = 300\n')
    model = load_config(path, {}).models["llama3.2:1b"]
    assert (model.parallel, model.keep_alive, model.default_keep_alive) == (2, 5400, 300)
    assert load_config(None, {"CORRAL_MODELS": '{"a:B": {"num_ctx": 4096}}'}).models["a:B"].num_ctx == 4096


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("5m", 300),
        ("1h30m", 5400),
        ("300ms", 0.3),
        ("1.5h", 5400),
        ("-1s", -1),
        ("0", 0),
        (90, 90),
        (-1, -1),
        (0.5, 0.5),
        ("2\N{MICRO SIGN}s", 2e-6),
        ("2\N{GREEK SMALL LETTER MU}s", 2e-6),
        (-1e-30, -1e-30),
    ],
)
def test_a_keep_alive_is_read_as_ollama_reads_it(value: str | float, seconds: float) -> None:
    assert duration_seconds(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["0.4ns", "-0.4ns", "0.0004us", 1e-30, 0.0, 9e-10])
def test_a_keep_alive_of_less_than_a_nanosecond_is_none_as_to_ollama(value: str | float) -> None:
    assert duration_seconds(value) == 0


@pytest.mark.parametrize("value", ["5", "", "m", "5 m", "five", "1h30", True, 10**400])
def test_a_keep_alive_that_ollama_would_refuse_is_refused(value: str | float) -> None:
    with pytest.raises(ValueError, match="duration"):
        duration_seconds(value)


def test_a_ceiling_for_ever_allows_any_default_and_no_default_for_ever_fits_under_another(folder: Path) -> None:
    load_config(None, {"CORRAL_MODELS": '{"a": {"keep_alive": -1, "default_keep_alive": "9h"}}'})
    text = refusal(environ={"CORRAL_MODELS": '{"a": {"keep_alive": "9h", "default_keep_alive": -1}}'})
    assert text == "CORRAL_MODELS: models.a: default_keep_alive must not be above keep_alive"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[server]\nprot = 1", "server.prot: there is no such setting; did you mean port?"),
        ("[sever]\nport = 1", "sever: there is no such setting; did you mean server?"),
        ('[server]\nport = "x"', "server.port = 'x': must be a valid integer"),
        ("[server]\nport = 65536", "server.port = 65536: must be less than or equal to 65535 (the default is 8000)"),
        ("[timeouts]\nstall_seconds = 0", "timeouts.stall_seconds = 0: must be greater than 0"),
        ("[timeouts]\nstall_seconds = nan", "timeouts.stall_seconds = nan: must be a finite number"),
        ("[database]\ndead_after_seconds = 5", "database: dead_after_seconds must be at least twice"),
        ('[database]\npath = ""', "database.path = '': write the path of a file"),
        ("[retry]\ninitial_seconds = 20", "retry: cap_seconds must be at least initial_seconds"),
        ('[server]\ntrusted_proxies = ["10.0.0.1/8"]', "server.trusted_proxies.0 = '10.0.0.1/8': value is not a valid"),
        ('[server]\nallowed_origins = ["a.example"]', "server.allowed_origins.0 = 'a.example': write"),
        (
            '[server]\nallowed_origins = ["https://*.a.example"]',
            "server.allowed_origins.0 = 'https://*.a.example': write",
        ),
        ('[server]\nallowed_origins = ["https://b\u00fc.a"]', "server.allowed_origins.0 = 'https://b\u00fc.a': write"),
        ('[server]\nallowed_origins = ["http://a@b"]', "server.allowed_origins.0 = 'http://a@b': write"),
        ('[server]\nallowed_hosts = ["a.example:80"]', "server.allowed_hosts.0 = 'a.example:80': write"),
        ('[server]\nallowed_hosts = ["https://a.example"]', "server.allowed_hosts.0 = 'https://a.example': write"),
        ('[server]\nmax_body = "8 apples"', "server.max_body = '8 apples': could not interpret byte unit"),
        ("backends = []", "backends: Tuple should have at least 1 item"),
        ('[[backends]]\nname = "a b"', "backends.0.name = 'a b': String should match pattern"),
        ('[[backends]]\nurl = "box:11434"', "backends.0.url = 'box:11434': write a whole URL"),
        ('[[backends]]\nname = "a"\n[[backends]]\nname = "a"', "backends: two backends have the same name"),
        ('[[backends]]\n[backends.headers]\n"a b" = "c"', "backends.0.headers: 'a b' cannot be sent"),
        ('[models."a"]\nnum_ctxt = 1', "models.a.num_ctxt: there is no such setting; did you mean num_ctx?"),
        ("[server]\nhost = []", "server.host: write an address"),
        ('[server]\nhost = ["127.0.0.1", 1]', "server.host: write an address, or a list"),
        ("[log]\nlevel = 10", "log.level = 10: must be 'DEBUG', 'INFO', 'WARNING', 'ERROR' or 'CRITICAL' (the default"),
        ("[server\n", "not TOML: Expected ']'"),
        ("\0", "not TOML:"),
    ],
)
def test_a_bad_file_is_refused_with_the_place_the_value_and_the_remedy(folder: Path, text: str, expected: str) -> None:
    path = write(folder, text)
    assert refusal(path).startswith(f"{path}: {expected}")


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("CORRAL_SERVER__PRT", "1", "CORRAL_SERVER__PRT: server.prt: there is no such setting; did you mean port?"),
        ("CORRAL_SERVR__PORT", "1", "CORRAL_SERVR__PORT: there is no such setting; did you mean server?"),
        ("CORRAL_SERVER__PORT", "x", "CORRAL_SERVER__PORT: server.port = 'x': must be a valid integer"),
        ("CORRAL_BACKENDS", "x", 'CORRAL_BACKENDS: must be JSON, such as ["a", "b"] (Expecting value'),
        ("OLLAMA_URL", "box:1", "OLLAMA_URL: backends.0.url = 'box:1': write a whole URL"),
        ("OLLAMA_POLL_INTERVAL", "0", "OLLAMA_POLL_INTERVAL: database.poll_interval_seconds = '0': must be greater"),
        ("DATABASE_URL", "mysql://h", "DATABASE_URL: database.url = (not shown): write"),
        ("DATABASE_URL", "mysql+asyncmy://h", "DATABASE_URL: database.url = (not shown): write"),
        ("DATABASE_URL", "sqlite://", "DATABASE_URL: database: write the path of a file behind three slashes"),
        ("DATABASE_URL", "sqlite:///:memory:", "DATABASE_URL: database: write the path of a file behind three slashes"),
        ("CORRAL_SERVER__HOST", "127.0.0.1,", "CORRAL_SERVER__HOST: server.host = '127.0.0.1,': write an address"),
        ("LOG_LEVEL", "loud", "LOG_LEVEL: log.level = 'LOUD': must be 'DEBUG', 'INFO', 'WARNING', 'ERROR' or"),
    ],
)
def test_a_bad_variable_is_refused_by_its_name(folder: Path, variable: str, value: str, expected: str) -> None:
    assert refusal(environ={variable: value}).startswith(expected)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", "mysql://me:hunter2@h/d"),
        *(("DATABASE_URL", f"postgresql://me:hunter2{one}1@h/d") for one in ("/", "#", "?", "?a=", "[", "/@")),
        *(("DATABASE_URL", f"postgresql+asyncpg://me:1{one}hunter2@h/d") for one in ("/", "#", "?", "?a=", "[", "/@")),
        ("DATABASE_URL", "postgresql://me:1@h/d#hunter2"),
        ("DATABASE_URL", "postgresql://me:1@h:hunter2/d"),
        ("DATABASE_URL", "postgresql://me:1@h/d?hunter2"),
        ("OLLAMA_URL", "http://me:hunter2@h"),
        ("OLLAMA_URL", "http://me:1/hunter2@h"),
        ("OLLAMA_URL", "http://me:hunter2/1@h"),
        ("CORRAL_BACKENDS", '[{"headers": {"Authorization": "hunter2"}'),
        ("CORRAL_BACKENDS", '[{"headers": {"Authorization": "\\u0001hunter2"}}]'),
    ],
)
def test_a_password_is_never_printed_with_a_refusal(folder: Path, variable: str, value: str) -> None:
    assert "hunter2" not in refusal(environ={variable: value})


def test_secrets_are_not_part_of_how_a_configuration_prints(folder: Path) -> None:
    config = load_config(
        None,
        {
            "SECRET_KEY": "hunter2",
            "DEMO_ADMIN_KEY": "hunter2",
            "DATABASE_URL": "postgresql://me:hunter2@h/d",
            "CORRAL_BACKENDS": '[{"headers": {"Authorization": "hunter2"}}]',
        },
    )
    assert config.backends[0].headers == {"Authorization": "hunter2"}
    assert "hunter2" not in repr(config)


def test_an_option_with_a_bad_value_is_refused_as_one(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^the command line: server\.port = 70000: must be less"):
        load_config(None, {}, {"server.port": 70000})


def test_keys_for_a_try_out_are_refused_in_a_file(folder: Path) -> None:
    path = write(folder, '[auth]\ndemo_admin_key = "a"\n')
    remedy = "set DEMO_ADMIN_KEY in the environment or .env"
    assert refusal(path) == f"{path}: auth.demo_admin_key: not for this file: {remedy}"


def test_a_file_that_cannot_be_read_is_refused_with_its_name(folder: Path) -> None:
    missing = folder / "missing.toml"
    assert refusal(missing) == (f"{missing}: cannot be read (No such file or directory): give --config a file that can")
    assert refusal(folder).startswith(f"{folder}: cannot be read (Is a directory)")


def test_static_files_and_the_default_file_are_found_from_any_working_directory(folder: Path) -> None:
    assert find_static_folder().is_dir()
    assert find_config_file().is_file()
    assert folder not in find_config_file().parents


def test_a_configuration_cannot_be_changed(folder: Path) -> None:
    config = load_config(None, {})
    with pytest.raises(ValueError, match="frozen"):
        config.server.port = 1


@pytest.mark.parametrize(
    ("command", "given", "words"),
    [
        ([], ["--config", "other.toml"], "other.toml"),
        (["check"], ["--config", "other.toml"], "other.toml"),
        (["keys", "list"], ["--config", "other.toml"], "other.toml"),
        ([], ["--port", "70000"], "server.port = 70000"),
        (["serve"], ["--port", "70000"], "server.port = 70000"),
    ],
)
async def test_options_hold_before_a_command_and_behind_it(
    command: list[str], given: list[str], words: str, folder: Path
) -> None:
    for place in {0, len(command)}:
        line = [*command[:place], *given, *command[place:]]
        async with started("service", *line, folder=folder) as process:
            assert (await process.ended(), words in process.said()) == (1, True), process.said()
