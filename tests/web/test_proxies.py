"""Behind an authenticating proxy, on real gunicorn: whose headers are believed is the peer's address, and nothing else."""

import http.client
import re

import pytest

from tests.web.served import PROXY
from tests.web.serving import PATIENCE_SECONDS, served

ELSEWHERE = "127.0.0.1"
WHO = re.compile(r'class="who">([^<]*)<')


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with served(tmp_path_factory.mktemp("proxied"), "--workers", "1", "--threads", "2") as running:
        yield running


def seen_as(gateway, *headers, peer=PROXY):
    """The name that the page shows for a request from `peer`; None for nobody's."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", gateway.port, timeout=PATIENCE_SECONDS, source_address=(peer, 0)
    )
    connection.putrequest("GET", "/")
    for name, value in headers:
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    assert answer.status == 200, text
    found = WHO.search(text)
    return found[1] if found and "Sign in" not in found[1] else None


def test_the_proxy_says_who_it_is(gateway):
    assert seen_as(gateway, ("X-Forwarded-User", "ada")) == "ada"


@pytest.mark.parametrize(
    "claims",
    [
        [("X-Forwarded-For", PROXY)],
        [("X-Forwarded-For", PROXY), ("X-Real-IP", PROXY), ("Forwarded", f"for={PROXY}"), ("X-Client-IP", PROXY)],
    ],
    ids=["X-Forwarded-For", "all of them"],
)
def test_nobody_else_does_whatever_address_they_claim(gateway, claims):
    assert seen_as(gateway, ("X-Forwarded-User", "ada"), *claims, peer=ELSEWHERE) is None


def test_a_header_that_comes_twice_or_by_another_spelling_is_nobodys(gateway):
    assert seen_as(gateway, ("X-Forwarded-User", "eve"), ("X-Forwarded-User", "ada")) is None
    assert seen_as(gateway, ("X_Forwarded_User", "ada")) is None
    assert seen_as(gateway, ("X-Forwarded-User", "eve"), ("X_Forwarded_User", "ada")) == "eve"
