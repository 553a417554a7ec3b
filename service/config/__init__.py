"""The configuration: what can be set, and how it is read from file, environment and command line."""

from service.config.env_file import EnvFile, read_env_file
from service.config.reading import find_config_file, find_static_folder, load_config, taken_names
from service.config.sections import (
    LONGEST_DURATION,
    AuthConfig,
    BackendConfig,
    BreakerConfig,
    Config,
    DatabaseConfig,
    HealthConfig,
    LogConfig,
    ModelConfig,
    OutputConfig,
    QueueConfig,
    RetryConfig,
    ServerConfig,
    TimeoutsConfig,
    WebsocketConfig,
    duration_seconds,
)

__all__ = [
    "LONGEST_DURATION",
    "AuthConfig",
    "BackendConfig",
    "BreakerConfig",
    "Config",
    "DatabaseConfig",
    "EnvFile",
    "HealthConfig",
    "LogConfig",
    "ModelConfig",
    "OutputConfig",
    "QueueConfig",
    "RetryConfig",
    "ServerConfig",
    "TimeoutsConfig",
    "WebsocketConfig",
    "duration_seconds",
    "find_config_file",
    "find_static_folder",
    "load_config",
    "read_env_file",
    "taken_names",
]
