"""By which names a service without keys may be called; what is pure of it, and which pages are of its own host."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from service.api.access import hosts
from service.api.access.hosts import Hosts, read_place
from service.api.access.origins import AllowedOrigins, is_of_host

RULE = Hosts(("corral.example.org", ".in.example.org"), ("box", "box.home.example"), "team")


@pytest.mark.parametrize(
    "host",
    [
        *("", ":8000", "192.168.1.4", "192.168.1.4:8000", "127.1", "2130706433", "0x7f.0.0.1", "127.0.0.1."),
        *("[::1]", "[::1]:8000", "[fe80::1%eth0]:8000", "[fe80::1%25eth0]", "::1", "fe80::1%eth0"),
        *("corral", "ollama-api:8000", "my_upstream", "LOCALHOST:8000", "localhost.", "a.localhost"),
        *("box.local", "host.docker.internal:8000", "nas.lan", "nas.home.arpa", "Corral.Team.SVC"),
        *("corral.team.svc.cluster.local:80", "corral.team", "corral.team:8000", "box", "box.home.example"),
        *("corral.example.org", "CORRAL.example.org.:99", "a.in.example.org", "b.a.in.example.org"),
    ],
)
def test_these_hosts_are_served(host: str) -> None:
    assert RULE.serve(host)


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "example.org", "in.example.org", "a.corral.example.org", "evilcorral.example.org"),
        *("corral.other", "a.corral.team", ".team", "corral.team.example", "team.corral"),
        *(
            "localhost.example",
            "x.local.example",
            "127.0.0.1.example.org",
            "1.2.3.4.5",
            "[evil.example]",
            "xlocal.a",
        ),
        *(
            "xn--bcher-kva.example",
            "b\u00fccher",
            "user@localhost",
            "localhost@evil.example",
            "local host",
            "localhost/",
        ),
        *(
            "localhost%2eexample",
            "localhost:http",
            "localhost:80:80",
            "localhost:999999",
            "[::1",
            "::1]",
            "..",
            ".local",
        ),
        *("a" * 254, "a" * 60_000, "evil.example,localhost", "localhost\x00.example", "http://localhost"),
    ],
)
def test_others_are_not(host: str) -> None:
    assert not RULE.serve(host)
    assert Hosts(("*",)).serve(host)


def test_outside_kubernetes_two_words_are_a_public_name() -> None:
    assert not Hosts(()).serve("corral.team")


@pytest.mark.parametrize(
    ("resolv_conf", "is_pod", "served", "refused"),
    [
        ("search team.svc.cluster.local svc.cluster.local cluster.local\n", True, "corral.team", "corral.svc.example"),
        ("search team.svc.example.org\n", True, "corral.team", "corral.default"),
        ("search team.svc.cluster.local\n", False, "box.team.svc", "corral.team"),
        ("search com.example.org team.svc.cluster.local\n", True, "box.com.example.org", "corral.com"),
        ("domain old.example\nnameserver 1.2.3.4\nsearch new.example.\n", False, "box.new.example", "box.old.example"),
        ("", True, "box", "corral.team"),
    ],
)
def test_the_machine_knows_its_names_by_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resolv_conf: str, is_pod: bool, served: str, refused: str
) -> None:
    """No name is asked of a server for this."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    if is_pod:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    searched, names = tmp_path / "resolv.conf", tmp_path / "hosts"
    searched.write_text(resolv_conf)
    names.write_text("127.0.0.1 localhost\n#1 box no.example\n\n127.0.1.1 Box.Corp.Example box # this.example\n")
    monkeypatch.setattr(hosts, "_RESOLVER_FILE", searched)
    monkeypatch.setattr(hosts, "_HOSTS_FILE", names)
    monkeypatch.setattr(socket, "gethostname", lambda: "BOX")
    rule = hosts.own_hosts(())
    assert [
        name for name in (served, refused, "box.corp.example", "no.example", "this.example") if rule.serve(name)
    ] == [
        served,
        "box.corp.example",
    ]
    for file in (searched, names):
        file.unlink()
    assert hosts.own_hosts(()).serve("box")


@pytest.mark.parametrize(
    ("origin", "host", "is_own"),
    [
        ("http://corral:8000", "corral:8000", True),
        ("http://Corral.Example.ORG", "corral.example.org", True),
        ("https://corral.example.org", "corral.example.org", True),
        ("https://corral.example.org", "corral.example.org:443", True),
        ("http://corral.example.org", "corral.example.org:80", True),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("http://corral.example.org", "corral.example.org:443", False),
        ("http://corral:8001", "corral:8000", False),
        ("http://corral", "corral:8000", False),
        ("http://corral:8000", "corral", False),
        ("http://evil.example", "corral.example.org", False),
        ("null", "null", False),
        ("http://", "", False),
        ("", "", False),
        ("http://corral@evil.example", "corral", False),
        ("http://[half", "[half", False),
    ],
)
def test_a_page_is_ours_by_host_and_port(origin: str, host: str, is_own: bool) -> None:
    assert is_of_host(origin, host) is is_own


def test_all_of_a_scheme_may_be_allowed() -> None:
    allowed = AllowedOrigins(("app://*", "https://chat.example.org"))
    origins = (
        "app://corral",
        "App://any.thing",
        "app://",
        "app:x",
        "apps://corral",
        "null",
        "https://CHAT.example.org",
    )
    assert [origin for origin in origins if allowed.allow(origin)] == [
        "app://corral",
        "App://any.thing",
        # As Ollama's does: behind "file://" of a page there is nothing.
        "app://",
        "https://CHAT.example.org",
    ]
    assert AllowedOrigins(("*",)).allow("null")
    assert not AllowedOrigins(()).allow("https://*")
    assert AllowedOrigins(("file://*",)).allow("file://")


def test_a_host_is_read_as_names_are_compared() -> None:
    assert read_place(" Corral.Example.ORG.:8000") == ("corral.example.org", 8000)
