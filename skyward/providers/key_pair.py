"""Key pairs for SSH, of users and of hosts."""

from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class Pair:
    """A key pair: the private half as OpenSSH writes it, the public half as a line."""

    def __init__(self, private: bytes | None = None) -> None:
        key: Any = serialization.load_ssh_private_key(private, None) if private else Ed25519PrivateKey.generate()
        form, plain = serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        self.private: bytes = key.private_bytes(serialization.Encoding.PEM, form, plain)
        encoding, public = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        self.public: str = key.public_key().public_bytes(encoding, public).decode()
