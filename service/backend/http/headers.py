"""Which headers travel to a backend."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection, Mapping

from multidict import CIMultiDict
from yarl import URL

_OURS = {
    "Accept": "*/*",
    # Ollama never compresses, and a proxy before it should not: the replies are read on their way.
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
    "User-Agent": "ollama-corral",
}

_KEPT_BACK = frozenset(
    {
        # They belong to one connection (RFC 9110, 7.6.1).
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        # The body was unpacked when it was read; see ``with_callers``.
        "content-encoding",
        # They are written anew.
        "accept-encoding",
        "content-length",
        # Ollama refuses foreign hosts and origins (wire contract 0).
        "host",
        "origin",
        "referer",
        # They would have a server take the request for one of another method, or to another path, than we have judged.
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "x-original-url",
        "x-rewrite-url",
        # They are meant for us.
        "authorization",
        "cookie",
        "cookie2",
        "x-api-key",
        # Single sign-on in front of us names the person in them, and some the person's tokens (oauth2-proxy, Grafana,
        # YunoHost; "From" is HTTP's own).
        "api-key",
        "auth-user",
        "from",
        "x-auth",
        "x-email",
        "x-forwarded-access-token",
        "x-forwarded-email",
        "x-forwarded-groups",
        "x-forwarded-name",
        "x-forwarded-preferred-username",
        "x-forwarded-user",
        "x-forwarded-username",
        "x-original-user",
        "x-user",
        "x-username",
    }
)
_KEPT_BACK_PREFIXES = (
    # Cloudflare Access, Authelia, Tailscale, AWS, Keycloak's and nginx's proxies, authentik, Google IAP.
    "cf-access-",
    "remote-",
    "ssl-client-",
    "tailscale-",
    "x-amzn-oidc-",
    "x-auth-",
    "x-authentik-",
    "x-client-cert",
    "x-goog-api-",
    "x-goog-authenticated-user-",
    "x-goog-iap-",
    # Azure, Open WebUI, Pomerium, Caddy's security, LibreChat and others, Vouch, Grafana.
    "x-ms-client-principal",
    "x-ms-token-",
    "x-openwebui-user-",
    "x-pomerium-",
    "x-remote-",
    "x-sso-",
    "x-token-",
    "x-user-",
    "x-vouch-",
    "x-webauth-",
)


def base_headers(url: URL, configured: Mapping[str, str]) -> CIMultiDict[str]:
    """Ours, the credentials in the backend's URL, and over them the configured ones."""
    headers = CIMultiDict(_OURS)
    if url.user is not None or url.password is not None:
        headers["Authorization"] = _basic_auth(url.user or "", url.password or "")
    headers.update(configured)
    return headers


def _basic_auth(login: str, password: str) -> str:
    """The credentials as RFC 7617 writes them. Raises ValueError for a login that it cannot write."""
    if ":" in login:
        raise ValueError('a ":" is not allowed in the login of a backend\'s URL (RFC 7617, 2)')
    return f"Basic {b64encode(f'{login}:{password}'.encode()).decode()}"


def with_callers(
    base: CIMultiDict[str], configured: Mapping[str, str], callers: Mapping[str, str], *, is_as_it_came: bool = False
) -> CIMultiDict[str]:
    """The caller's headers, except those that are not for a backend, over ours and under the configured ones.
    ``is_as_it_came``: the body that goes with them is packed if the caller has packed it, and they say so.
    """
    given = CIMultiDict(callers)
    # Each line may name further headers of one connection.
    lines = given.getall("Connection", ())
    kept_back = _KEPT_BACK | {name.strip().lower() for line in lines for name in line.split(",")}
    headers = base.copy()
    headers.update((name, value) for name, value in given.items() if not _is_kept_back(name, kept_back))
    if is_as_it_came and (codings := given.getall("Content-Encoding", ())):
        headers["Content-Encoding"] = ", ".join(codings)
    headers.update(configured)
    return headers


def request_head(method: str, target: str, host: str, headers: Mapping[str, str]) -> bytes:
    """The beginning of a request (RFC 9112, 3), up to where the headers of its body follow."""
    lines = [f"{method} {target} HTTP/1.1\r\n"]
    if "Host" not in headers:
        lines.append(f"Host: {host}\r\n")
    lines += [f"{name}: {value}\r\n" for name, value in headers.items()]
    # A caller's headers were decoded in this way when they came (by aiohttp).
    return "".join(lines).encode("utf-8", "surrogateescape")


def _is_kept_back(name: str, kept_back: Collection[str]) -> bool:
    # Servers of the CGI kind take both signs for the same.
    plain = name.lower().replace("_", "-")
    return plain in kept_back or plain.startswith(_KEPT_BACK_PREFIXES)
