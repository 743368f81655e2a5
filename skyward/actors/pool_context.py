"""What the actors of a pool read, and none of them changes."""

from dataclasses import dataclass

from skyward.actors.connection import Clients
from skyward.actors.tls import Authority
from skyward.config.spec import PoolSpec
from skyward.environment.user_modules import UserModules
from skyward.providers.provider import Provider
from skyward.telemetry.event_log import EventLog


@dataclass(frozen=True, slots=True)
class PoolContext:
    """The configuration of one pool.

    Attributes
    ----------
    pool
        The pool's name: its tag at the provider, and part of every node's name.
    spec
        What the user wants.
    hooks
        What plugins do on the nodes, packed.
    modules
        The user's own modules as bare machines are sent them.
    record
        Where all that happens is noted.
    authority
        Signs the certificates of the nodes.
    clients
        Makes the clients of the connections to the nodes.
    """

    pool: str
    spec: PoolSpec
    hooks: bytes
    modules: UserModules
    record: EventLog
    authority: Authority
    clients: Clients

    @property
    def provider(self) -> Provider:
        """Where machines come from."""
        provider: Provider = self.spec.provider
        return provider
