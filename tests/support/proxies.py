"""Real proxies in front of a service, each as little configured as can be: what it does by itself is what is tried."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.bench.processes import free_port
from tests.support.processes import PATIENCE_SECONDS, ChildProcess

_NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass {url};
        }}
    }}
}}
"""
_HAPROXY = """
defaults
    mode http
    timeout connect 60s
    timeout client 4h
    timeout server 4h
listen corral
    bind 127.0.0.1:{port}
    server corral {host}
"""
_CADDY = """
{{
    admin off
    auto_https off
}}
http://127.0.0.1:{port} {{
    reverse_proxy {host}
}}
"""

_CONFIGURATIONS = {"nginx": _NGINX, "haproxy": _HAPROXY, "caddy": _CADDY}
_ARGUMENTS = {
    "nginx": ("-e", "stderr", "-c", "{file}"),
    "haproxy": ("-f", "{file}"),
    "caddy": ("run", "--adapter", "caddyfile", "--config", "{file}"),
}


@asynccontextmanager
async def proxy_before(url: str, name: str, program: str, folder: Path) -> AsyncIterator[str]:
    """The address of a proxy that passes everything on to ``url``; it is gone afterwards, and writes only here."""
    port = free_port()
    file = folder / f"{name}.conf"
    file.write_text(_CONFIGURATIONS[name].format(folder=folder, port=port, url=url, host=url.partition("://")[2]))
    process = await asyncio.create_subprocess_exec(
        program,
        *(argument.format(file=file) for argument in _ARGUMENTS[name]),
        cwd=folder,
        env=os.environ | {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    proxy = ChildProcess(process)
    try:
        await _listening(proxy, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        # Not by a kill, which would leave nginx's workers behind.
        proxy.send(signal.SIGTERM)
        await proxy.ended()


async def _listening(proxy: ChildProcess, port: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            assert proxy.is_running, proxy.said()
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                continue
            writer.close()
            return
