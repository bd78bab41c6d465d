"""GitHub Apps of tests: a key pair, and a fake GitHub that knows the App."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric import rsa

from bridge.demonstrating.fake_github import FakeGitHub

APP_ID = "4711"
REPOSITORY = "acme/widgets"


@dataclass(frozen=True)
class KeyPair:
    """An App's private key and GitHub's half of it, both PEM."""

    private: bytes
    public: bytes


@cache
def key_pair(number: int = 1) -> KeyPair:
    """One of a few key pairs of this process: the same number is the same pair."""
    del number
    return pem_of(rsa.generate_private_key(public_exponent=65537, key_size=2048))


def pem_of(key) -> KeyPair:
    private = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.TraditionalOpenSSL, forms.NoEncryption())
    public = key.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
    return KeyPair(private, public)


def key_file(folder: Path, pair: KeyPair | None = None) -> Path:
    """The private key as a file."""
    file = folder / "app.pem"
    file.write_bytes((pair or key_pair()).private)
    return file


def with_app(fake: FakeGitHub, *repositories: str, **granted) -> int:
    """Let `fake` know the App and have it installed on `repositories`; answers the installation's id."""
    fake.apps.add(APP_ID, key_pair().public)
    return fake.apps.install(APP_ID, *(repositories or (REPOSITORY,)), **granted)
