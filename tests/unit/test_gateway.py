"""Both actors that a driver reaches hand on what arrives, with the reference to answer to."""

import asyncio

from casty import Client, Cluster, Runtime

from skyward.remote.node import blob_server, gateway
from skyward.remote.node.gateway import NodeSystem
from skyward.remote.protocol import Assign, Assigned, Batch, Chunk, Fetch, Freight, Request
from tests.kit import SOON


def test_a_node_answers_requests_and_serves_blobs() -> None:
    requests: list[Request] = []

    def answer(request: Request) -> None:
        requests.append(request)
        assert isinstance(request, Assign)
        request.reply_to.tell(Assigned())

    def serve(message: Freight) -> None:
        assert isinstance(message, Fetch)
        message.reply_to.tell(Chunk(bytes(message.batch)))

    async def run() -> None:
        threads = Runtime(threads=1)
        system = NodeSystem(cluster=Cluster(bind="127.0.0.1:0", name="here"), runtime=threads)
        system.answer, system.serve_blobs = answer, serve
        async with asyncio.timeout(SOON), system:
            address = system.node.address or ""
            async with Client(seeds=(address,), name="here", runtime=threads) as client:
                sent = Assign(1, (Batch(1, b"call"),), {}, ())
                assert await gateway.ref(client, address).ask(sent) == Assigned()
                assert await blob_server.ref(client, address).ask(Fetch(3, 0)) == Chunk(b"\0\0\0")
        (arrived,) = requests
        assert isinstance(arrived, Assign)
        assert (arrived.number, arrived.batches) == (sent.number, sent.batches)

    asyncio.run(run())
