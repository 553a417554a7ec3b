"""What can be configured: one frozen model for each section of ``config.toml``, which explains every key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ByteSize, ConfigDict, Field, model_validator
from pydantic.networks import IPvAnyNetwork
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from service.config.addresses import database_url, listened_hosts, server_url, sqlite_path
from service.job import RELOADING, SHIFT

MIBIBYTE = 1 << 20

_NANOSECONDS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
# The micro sign and the Greek letter look alike.
_NANOSECONDS |= {"\N{MICRO SIGN}s": 10**3, "\N{GREEK SMALL LETTER MU}s": 10**3}
_LEAST_SECONDS = 1e-9
"""Go counts whole nanoseconds; what is less is nothing."""
LONGEST_DURATION = 100
"""Characters; nobody writes more, and each part of one takes its time."""
_DURATION = re.compile(
    r"([+-]?)((?:(?:\d+\.?\d*|\.\d+)(?:ns|us|[\N{MICRO SIGN}\N{GREEK SMALL LETTER MU}]s|ms|s|m|h))+|0)"
)
_DURATION_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|[\N{MICRO SIGN}\N{GREEK SMALL LETTER MU}]s|ms|s|m|h)")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
SecondsOrNone = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
"""Seconds, where zero switches off what they are for."""
Days = Annotated[float, Field(gt=0, le=36_500, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


def duration_seconds(value: str | float) -> float:
    """Seconds of a ``keep_alive`` as Ollama reads it: a number, or a Go duration such as ``"5m"`` (negative: for ever).

    Raises ValueError for anything else, also for a text that is a number without a unit (wire contract 0).
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError('write seconds as a number, or a duration such as "5m" or "1h30m"')
    if not isinstance(value, str):
        try:
            return 0.0 if 0 <= value < _LEAST_SECONDS else float(value)
        except OverflowError:
            raise ValueError("no duration is so long") from None
    found = _DURATION.fullmatch(value) if len(value) <= LONGEST_DURATION else None
    if found is None:
        raise ValueError('write seconds as a number, or a duration such as "5m" or "1h30m"')
    parts = _DURATION_PART.findall(found[2])
    seconds = sum(float(number) * _NANOSECONDS[unit] for number, unit in parts) / 10**9
    if seconds < _LEAST_SECONDS:
        return 0.0
    return -seconds if found[1] == "-" else seconds


def _file_path(value: Path) -> Path:
    if not value.name:
        raise ValueError('write the path of a file, such as "data/queue.db"')
    return value


def _sendable_headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not value.isprintable():
            raise ValueError(f"{name!r} cannot be sent as an HTTP header")
    return headers


_OWN_PORTS = {"http": ":80", "https": ":443"}


def _origin(value: str) -> str:
    if value == "*":
        return value
    parts = urlsplit(value)
    is_alone = bool(parts.scheme and parts.netloc) and not (parts.path or parts.query or parts.fragment)
    if not is_alone or ("*" in value and parts.netloc != "*") or "@" in value or not value.isascii():
        raise ValueError(
            'write "*", or scheme and host such as "https://chat.example.org", with nothing behind and "xn--…" for '
            'letters beyond ASCII, or "app://*" for all of a scheme'
        )
    # Browsers leave a scheme's own port out.
    return value.lower().removesuffix(_OWN_PORTS.get(parts.scheme, ""))


_HOST = re.compile(r"\*|\.?[0-9a-z_][0-9a-z_.-]*")


def _host(value: str) -> str:
    value = value.lower().removesuffix(".")
    if not _HOST.fullmatch(value):
        raise ValueError('write "*", a name without a port ("corral.example.org"), or ".example.org" for all below it')
    return value


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


class ServerConfig(Section):
    host: Annotated[tuple[str, ...], NoDecode, BeforeValidator(listened_hosts)] = ("0.0.0.0", "::")
    port: int = Field(default=8000, ge=0, le=65_535)
    max_body: ByteSize = Field(default=ByteSize(64 * MIBIBYTE), ge=1024)
    max_bodies_bytes: ByteSize = Field(default=ByteSize(512 * MIBIBYTE), ge=MIBIBYTE)
    max_replies_bytes: ByteSize = Field(default=ByteSize(512 * MIBIBYTE), ge=MIBIBYTE)
    drain_seconds: SecondsOrNone = 20.0
    allowed_origins: tuple[Annotated[str, AfterValidator(_origin)], ...] = ("*",)
    allowed_hosts: tuple[Annotated[str, AfterValidator(_host)], ...] = ()
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()
    pass_unknown: bool = False
    access_log: bool = True


def _room_or_none(size: ByteSize) -> ByteSize:
    if 0 < size < 16 * MIBIBYTE:
        raise ValueError("must be 0, for no bound, or at least 16 MiB")
    return size


class DatabaseConfig(Section):
    url: Annotated[str, AfterValidator(database_url)] = Field(default="", repr=False)
    path: Annotated[Path, AfterValidator(_file_path)] = Path("data/queue.db")
    poll_interval_seconds: Seconds = 1.0
    retention_days: Days = 30.0
    log_retention_days: Days = 90.0
    max_bytes: Annotated[ByteSize, AfterValidator(_room_or_none)] = ByteSize(0)
    heartbeat_seconds: Seconds = 10.0
    dead_after_seconds: Seconds = 30.0

    @model_validator(mode="before")
    @classmethod
    def _names_a_file_by_a_url(cls, given: Any) -> Any:
        url = given.get("url") if isinstance(given, dict) else None
        path = sqlite_path(url.strip()) if isinstance(url, str) else None
        return given if path is None else {**given, "url": "", "path": path}

    @model_validator(mode="after")
    def _outlives_a_lost_heartbeat(self) -> Self:
        if self.dead_after_seconds < 2 * self.heartbeat_seconds:
            raise ValueError("dead_after_seconds must be at least twice heartbeat_seconds")
        return self


class QueueConfig(Section):
    default_model: str = Field(default="llama3.2", min_length=1)
    max_size: Count = 100_000
    max_size_per_owner: Annotated[int, Field(ge=0)] | Literal["fair"] = "fair"
    max_bytes: ByteSize = Field(default=ByteSize(1024 * MIBIBYTE), ge=MIBIBYTE)
    max_delay_days: Days = 30.0
    max_swap_wait_seconds: SecondsOrNone = 30.0
    hold_busy: bool = True
    heartbeat_seconds: SecondsOrNone = 15.0
    boost_high_seconds: SecondsOrNone = 60.0
    boost_low_seconds: SecondsOrNone = 60.0

    @property
    def boosts(self) -> dict[int, float]:
        """Backend seconds by which each priority (1, 0, -1) leads; a negative lead is a handicap."""
        return {1: self.boost_high_seconds, 0: 0.0, -1: -self.boost_low_seconds}


class RetryConfig(Section):
    initial_seconds: Seconds = 1.0
    factor: float = Field(default=2.0, ge=1, le=100)
    cap_seconds: Seconds = 16.0
    max_retries: int = Field(default=5, ge=0, le=1000)
    poison_failures: Count = 2

    @model_validator(mode="after")
    def _cap_is_not_below_the_start(self) -> Self:
        if self.cap_seconds < self.initial_seconds:
            raise ValueError("cap_seconds must be at least initial_seconds")
        return self


class TimeoutsConfig(Section):
    connect_seconds: Seconds = 5.0
    first_byte_cold_seconds: Seconds = 1_800.0
    first_byte_resident_seconds: Seconds = 7_200.0
    stall_seconds: Seconds = 900.0
    attempt_seconds: Seconds = 14_400.0


class BreakerConfig(Section):
    failure_threshold: Count = 5
    open_seconds: Seconds = 30.0


class HealthConfig(Section):
    probe_interval_seconds: Seconds = 10.0
    probe_timeout_seconds: Seconds = 5.0


class BackendConfig(Section):
    name: str = Field(default="ollama", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")
    url: Annotated[str, AfterValidator(server_url)] = "http://127.0.0.1:11434"
    concurrency: int = Field(default=5, ge=1, le=1000)
    models: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Empty: every model that the server has."""
    headers: Annotated[dict[str, str], AfterValidator(_sendable_headers)] = Field(default={}, repr=False)


KeepAlive = Annotated[float, BeforeValidator(duration_seconds), Field(allow_inf_nan=False)]


def _reloading_option(name: str) -> str:
    if name not in (*RELOADING, SHIFT):
        raise ValueError(f"write options that make Ollama load a model again: {', '.join((*RELOADING, SHIFT))}")
    return name


ReloadingOption = Annotated[str, AfterValidator(_reloading_option)]


class ModelConfig(Section):
    """Ceilings, and defaults for requests that say nothing. ``keep_alive`` is in seconds; below 0 it is for ever."""

    parallel: Count | None = None
    allow_options: tuple[ReloadingOption, ...] | None = None
    num_ctx: int | None = Field(default=None, ge=4)
    default_num_ctx: int | None = Field(default=None, ge=4)
    keep_alive: KeepAlive | None = None
    default_keep_alive: KeepAlive | None = None
    max_tokens: Count | None = None
    default_max_tokens: Count | None = None

    @model_validator(mode="after")
    def _defaults_keep_to_the_ceilings(self) -> Self:
        endless = float("inf")
        for key in ("num_ctx", "keep_alive", "max_tokens"):
            default, ceiling = getattr(self, f"default_{key}"), getattr(self, key)
            if default is None or ceiling is None:
                continue
            if (endless if default < 0 else default) > (endless if ceiling < 0 else ceiling):
                raise ValueError(f"default_{key} must not be above {key}")
        return self


DEMO_VARIABLES = {"demo_admin_key": "DEMO_ADMIN_KEY", "demo_user_key": "DEMO_USER_KEY"}
"""The variables for the keys of a try-out, by what they set."""


class AuthConfig(Section):
    required: bool = False
    token_minutes: float = Field(default=60.0, gt=0, le=525_600, allow_inf_nan=False)
    secret_key: str = Field(default="", repr=False)
    demo_admin_key: str = Field(default="", repr=False)
    demo_user_key: str = Field(default="", repr=False)

    @property
    def demo_variables(self) -> list[str]:
        """Those that were set."""
        return [variable for name, variable in DEMO_VARIABLES.items() if getattr(self, name)]


class MetricsConfig(Section):
    public: bool = False


class OutputConfig(Section):
    max_bytes: ByteSize = Field(default=ByteSize(16 * MIBIBYTE), ge=1024)


class WebsocketConfig(Section):
    max_subscriptions: Count = 100
    max_message_bytes: ByteSize = Field(default=ByteSize(64 * 1024), ge=1024)
    max_outbox_messages: int = Field(default=1000, ge=10)
    heartbeat_seconds: Seconds = 30.0


def _in_capitals(value: object) -> object:
    return value.strip().upper() if isinstance(value, str) else value


Level = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_in_capitals)]


class LogConfig(Section):
    level: Level = "INFO"


StreamDefault = Literal["auto", "always", "never"]


class ChatConfig(Section):
    stream_default: StreamDefault = "auto"


class Config(BaseSettings):
    """The whole configuration. ``Config()`` has the defaults; ``load_config`` returns what the user wants."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="CORRAL_", env_nested_delimiter="__", validate_default=True
    )

    server: ServerConfig = ServerConfig()
    database: DatabaseConfig = DatabaseConfig()
    queue: QueueConfig = QueueConfig()
    retry: RetryConfig = RetryConfig()
    timeouts: TimeoutsConfig = TimeoutsConfig()
    breaker: BreakerConfig = BreakerConfig()
    health: HealthConfig = HealthConfig()
    backends: tuple[BackendConfig, ...] = Field(default=(BackendConfig(),), min_length=1)
    models: dict[str, ModelConfig] = {}
    auth: AuthConfig = AuthConfig()
    metrics: MetricsConfig = MetricsConfig()
    chat: ChatConfig = ChatConfig()
    output: OutputConfig = OutputConfig()
    websocket: WebsocketConfig = WebsocketConfig()
    log: LogConfig = LogConfig()

    @model_validator(mode="after")
    def _backends_have_names_of_their_own(self) -> Self:
        names = [backend.name for backend in self.backends]
        if len(set(names)) < len(names):
            raise ValueError("two backends have the same name; give each its own")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The sources are read one by one in reading.py, which can then say where a bad value came from.
        return (init_settings,)
