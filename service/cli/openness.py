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
        f"auth.required is false; set CORRAL_AUTH__REQUIRED=true{others}."
    )
