"""Casty with the identities of a pool: what is right connects, everything else never does."""

import asyncio
from pathlib import Path

from casty import TLS, ActorSystem, Client, Cluster, Runtime

from skyward.actors.tls import Authority, Identity

POOL = Authority.create("pool")
NODE = POOL.issue("node", server=True)
STRANGER = Authority.create("pool").issue("driver", server=False)


def tls(identity: Identity, folder: Path) -> TLS:
    files = identity.write(folder)
    return TLS(cert=str(files.cert), key=str(files.key), ca=str(files.ca))


def connects(node: Identity, *drivers: TLS | None, folder: Path) -> list[bool]:
    """Start a node and say for each driver whether it gets in; a refused one notices nothing and waits for ever."""
    return asyncio.run(_connects(node, *drivers, folder=folder))


async def _connects(node: Identity, *drivers: TLS | None, folder: Path) -> list[bool]:

    async def one(driver: TLS | None) -> bool:
        try:
            async with asyncio.timeout(2), Client(seeds=(address,), name="trust", tls=driver, runtime=runtime):
                return True
        except TimeoutError:
            return False

    runtime = Runtime(threads=1)
    cluster = Cluster(bind="127.0.0.1:0", name="trust", tls=tls(node, folder))
    async with ActorSystem(cluster=cluster, runtime=runtime) as system:
        assert system.node is not None
        assert system.node.address is not None
        address = system.node.address
        return await asyncio.gather(*map(one, drivers))


def test_the_driver_of_the_pool_connects(tmp_path: Path) -> None:
    driver = tls(POOL.issue("driver", server=False), tmp_path / "driver")
    assert connects(NODE, driver, folder=tmp_path / "node") == [True]


def test_nobody_else_connects_to_a_node(tmp_path: Path) -> None:
    drivers = [
        tls(STRANGER, tmp_path / "stranger"),
        tls(Identity(STRANGER.cert, STRANGER.key, POOL.certificate), tmp_path / "who knows the public part"),
        tls(POOL.issue("node-2", server=True), tmp_path / "who took the key of a node"),
        None,
    ]
    assert connects(NODE, *drivers, folder=tmp_path / "node") == [False] * 4


def test_the_driver_does_not_connect_to_a_node_of_another_pool(tmp_path: Path) -> None:
    other = Authority.create("pool").issue("node", server=True)
    impostor = Identity(other.cert, other.key, POOL.certificate)
    driver = tls(POOL.issue("driver", server=False), tmp_path / "driver")
    assert connects(impostor, driver, folder=tmp_path / "node") == [False]
