"""SSH key pairs of users and of hosts."""

from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from skyward.errors import InvalidArgument


class KeyPair:
    """A key pair: the private key in OpenSSH's format, and the public key as a line. Without an argument, a new one."""

    def __init__(self, private: bytes | None = None) -> None:
        key: Any = Ed25519PrivateKey.generate() if private is None else _loaded(private)
        form, plain = serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        self.private: bytes = key.private_bytes(serialization.Encoding.PEM, form, plain)
        encoding, public = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        self.public: str = key.public_key().public_bytes(encoding, public).decode()

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a key without a passphrase, in the format of OpenSSH or in PEM, which EC2 uses for its key pairs.

        Raises
        ------
        InvalidArgument
            It cannot be read.
        """
        fix = "give the file of a private key, or leave it out: a key is made for the pool"
        try:
            return cls(file.read_bytes())
        except TypeError:
            fix = f"give a copy without one (ssh-keygen -p -N '' -f COPY), or {fix.partition(', or ')[2]}"
            raise InvalidArgument.of("key", str(file), "needs a passphrase", fix) from None
        except OSError as error:
            raise InvalidArgument.of("key", str(file), f"cannot be read: {error.strerror}", fix) from None
        except ValueError:
            raise InvalidArgument.of("key", str(file), "is not a private key", fix) from None


def _loaded(private: bytes) -> Any:
    load = serialization.load_ssh_private_key if b"OPENSSH" in private else serialization.load_pem_private_key
    return load(private, None)
