"""Who asks: by a Bearer token, by a session that was begun with one, by what an authenticating proxy says, or
because this is one machine.

The headers of a proxy are believed from its own addresses alone, by the connection's peer: X-Forwarded-For is
what a client wrote. Everybody else's are as if they were not there.
"""

import hmac
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv6Address, ip_address

from flask import Request

from bridge.web.gateway import Gateway
from bridge.web.sessions import session_of

LONGEST_NAME = 200
LONGEST_GROUPS = 16 * 1024
_NAMED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._@-]{0,62})=(?P<token>(?!=*$).+)", re.DOTALL)


class Proof(StrEnum):
    """How somebody showed who they are."""

    BEARER = "bearer"
    SESSION = "session"
    PROXY = "proxy"
    MACHINE = "machine"


@dataclass(frozen=True)
class Identity:
    """Somebody who may read, and maybe act."""

    name: str
    may_act: bool
    proof: Proof
    sealed_by: str = field(default="", repr=False)
    """What a form of this person is sealed with besides their browser's cookie: a session's own secret."""


@dataclass(frozen=True)
class NamedToken:
    """One token of the settings."""

    name: str
    token: str = field(repr=False)
    may_act: bool


def identity_of(request: Request, gateway: Gateway) -> Identity | None:
    """Who asks; None for everybody who showed nothing that holds. Whether such may read is access.py's matter.

    A Bearer token goes first, then a session, since people began it themselves, then the proxy, then one machine
    on which nobody is asked.
    """
    return _bearer(request, gateway) or _session(gateway) or _proxied(request, gateway) or _machine(gateway)


def identity_of_token(given: str, gateway: Gateway) -> NamedToken | None:
    """The token of the settings that `given` is; None if it is none of them."""
    # All are compared, so that the time taken tells nothing about which of them came close.
    found = [one for one in tokens_of(gateway) if same_token(given, one.token)]
    return max(found, key=lambda one: one.may_act, default=None)


def tokens_of(gateway: Gateway) -> Iterator[NamedToken]:
    """The tokens with which people and programs read and act."""
    for kind, given in (("read", gateway.read_tokens), ("act", gateway.act_tokens)):
        for number, text in enumerate(given, start=1):
            name, token = named(text)
            if token:
                yield NamedToken(name or f"{kind}-token-{number}", token, may_act=kind == "act")


def named(text: str) -> tuple[str, str]:
    """The name and the token of `name=token`, or no name and the whole text: a token may end with `=`."""
    match = _NAMED.fullmatch(text)
    return (match["name"], match["token"]) if match else ("", text)


def same_token(given: str, token: str) -> bool:
    """Whether these are the same token, in a time that does not tell how alike they are. Empty ones never are."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode()) and bool(token)


def bearer_of(request: Request) -> str:
    """The Bearer token that a request carries; empty for none."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def _bearer(request: Request, gateway: Gateway) -> Identity | None:
    found = identity_of_token(bearer_of(request), gateway)
    return Identity(found.name, may_act=found.may_act, proof=Proof.BEARER) if found else None


def _session(gateway: Gateway) -> Identity | None:
    # Each session is sealed by its token: where that is gone, no seal fits.
    for one in sorted(tokens_of(gateway), key=lambda one: not one.may_act):
        session = session_of(gateway, token=one.token)
        if session is not None:
            return Identity(one.name, may_act=one.may_act, proof=Proof.SESSION, sealed_by=session.secret)
    return None


def _proxied(request: Request, gateway: Gateway) -> Identity | None:
    proxy = gateway.proxy
    if proxy is None or not _from(request.remote_addr or "", gateway):
        return None
    name = _text(request.headers.get(proxy.user_header, ""))
    # A comma is two headers in one, or somebody whose name cannot be told from that.
    if not name or len(name) > LONGEST_NAME or not name.isprintable() or "," in name:
        return None
    groups = _text(request.headers.get(proxy.groups_header, ""))[:LONGEST_GROUPS]
    known = {group.strip() for group in groups.split(",")} - {""}
    may_act = name in proxy.act_users or bool(known & proxy.act_groups)
    return Identity(name, may_act=may_act, proof=Proof.PROXY, sealed_by=name)


def _from(peer: str, gateway: Gateway) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return gateway.proxy is not None and any((mapped or address) in one for one in gateway.proxy.addresses)


def _text(header: str) -> str:
    # WSGI hands headers over as Latin-1, proxies write UTF-8.
    return header.encode("latin-1", "replace").decode("utf-8", "replace").strip()


def _machine(gateway: Gateway) -> Identity | None:
    if not gateway.loopback_only:
        return None
    may_act = not gateway.act_tokens and gateway.proxy is None
    return Identity("this machine", may_act=may_act, proof=Proof.MACHINE)
