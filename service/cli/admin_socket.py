"""The socket of a service that runs on this machine. A user who may open it counts as an admin."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from service.config import Config
from service.errors import StartError

_SOCKET_PATH_BYTES = 107
"""sun_path holds 108 with the final NUL (unix(7))."""
_CONNECT_SECONDS = 10.0


def admin_socket_path(config: Config) -> Path | None:
    """Where the running service listens for commands; None with PostgreSQL, or for a path too long for a socket."""
    if config.database.url:
        return None
    path = config.database.path.with_name(config.database.path.name + ".sock")
    return path if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES else None


def socket_in_use(config: Config) -> Path | None:
    """The socket of the service that holds the configured database; None when none runs. A socket that a killed
    service left takes no connection.

    Raises StartError where somebody listens whom this user may not ask.
    """
    path = admin_socket_path(config)
    if path is None:
        return None
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(_CONNECT_SECONDS)
        try:
            one.connect(os.fspath(path))
        except PermissionError as error:
            raise StartError(
                f"the service's socket {path} belongs to another user; run this as that user, or give --url and a key"
            ) from error
        except TimeoutError as error:
            raise StartError(f"the service behind {path} takes no connection; see whether it hangs") from error
        except OSError:
            return None
    return path


def running_socket(config_file: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The same for whoever knows no more than the configuration file. Raises StartError."""
    from service.cli.configured import read_config

    return socket_in_use(read_config(config_file, environ))
