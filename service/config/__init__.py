"""The configuration: what can be set, and how it is read from file, environment and command line."""

from service.config.reading import find_config_file, find_static_folder, load_config
from service.config.sections import (
    LONGEST_DURATION,
    AuthConfig,
    BackendConfig,
    BreakerConfig,
    Config,
    DatabaseConfig,
    HealthConfig,
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
    "HealthConfig",
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
]
