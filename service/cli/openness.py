"""Who may use the service as it is configured, in one line that nobody overlooks."""

from __future__ import annotations

from service.cli.listening import is_of_this_machine, shown_hosts
from service.config import Config

_NO_ADMIN = (
    "CLOSED: auth.required is true and there is no admin's key yet; make one with: "
    "python -m service keys create --name me --role admin"
)


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
    origins, server = config.server.allowed_origins, config.server
    if "*" in origins:
        since, remedy = 'server.allowed_origins has "*"', "server.allowed_origins = []"
    elif "*" in server.allowed_hosts:
        since, remedy = 'server.allowed_hosts has "*"', "server.allowed_hosts = []"
    elif origins:
        return f"Of others' web pages only those of {', '.join(origins)} may do the same (server.allowed_origins)."
    else:
        return "Others' web pages may do nothing (server.allowed_origins)."
    return f"So may any web page that one of them has open, since {since}; set {remedy} to let in our own pages only."
