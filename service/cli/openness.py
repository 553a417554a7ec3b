"""Who may use the service as it is configured, in one line that nobody overlooks."""

from __future__ import annotations

from service.cli.listening import is_of_this_machine, shown_hosts
from service.config import Config

_NO_ADMIN = (
    "CLOSED: auth.required is true and there is no admin's key yet; make one with: "
    "python -m service keys create --name me --role admin"
)


_OF_ANY_PAGE = ("*", "http://*", "https://*")
"""Values of the settings, each of which lets in pages of anybody."""


def openness(config: Config, *, has_keys: bool, has_admin: bool) -> str | None:
    """What is said at the start, and by ``check`` where there are keys all the same; None where only keys get in."""
    if config.auth.required:
        return None if has_admin else _NO_ADMIN
    hosts = config.server.host
    although = "there are API keys, and yet " if has_keys else ""
    if names := config.auth.demo_variables:
        although = f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} set, and yet "
    others = "" if is_of_this_machine(hosts) else ", or CORRAL_SERVER__HOST=localhost to serve this machine only"
    return (
        f"OPEN: {although}anybody who reaches {shown_hosts(hosts)} may submit prompts and see all of them, since "
        f"auth.required is false; set CORRAL_AUTH__REQUIRED=true{others}. {_of_pages(config)}"
    )


def _of_pages(config: Config) -> str:
    """What web pages may do in the browsers of those who reach the service, where keys are not required."""
    server = config.server
    origins = server.allowed_origins
    doors = [
        (name, one)
        for name, listed in (("server.allowed_origins", origins), ("server.allowed_hosts", server.allowed_hosts))
        for one in listed
        if one in _OF_ANY_PAGE
    ]
    if doors:
        since = " and ".join(f'{name} has "{one}"' for name, one in doors)
        remedy = " and ".join(f"{name} = []" for name in dict.fromkeys(name for name, _ in doors))
        return (
            f"So may any web page that one of them has open, since {since}; set {remedy} to let in our own pages only."
        )
    said = (
        f"Of others' web pages only those of {', '.join(origins)} may do the same (server.allowed_origins)."
        if origins
        else "Others' web pages may do nothing (server.allowed_origins)."
    )
    if server.trusted_proxies:
        return f"{said} As our own counts every page behind a proxy of server.trusted_proxies, whatever its name."
    return said
