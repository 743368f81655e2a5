"""The pool is a standard executor: map, futures in any order, await, once on every node."""

import asyncio
from concurrent.futures import as_completed

import skyward as sky


def cube(x: int) -> int:
    return x**3


def total(numbers: list[int]) -> int:
    return sum(sky.shard(numbers))  # this node's share


async def gather(compute: sky.Compute) -> list[int]:
    return await asyncio.gather(*[compute.submit(cube, x) for x in range(4)])


if __name__ == "__main__":
    with sky.Compute(nodes=2, worker=sky.Worker(concurrency=2)) as compute:
        print("slots:", compute.slots, "nodes:", [node.number for node in compute.nodes])
        print("map:", list(compute.map(cube, range(6), chunksize=2)))
        futures = [compute.submit(cube, x) for x in range(6)]
        print("as completed:", sorted(future.result() for future in as_completed(futures)))
        print("awaited:", asyncio.run(gather(compute)))
        shares = compute.broadcast(total, list(range(100)))
        print("by node:", shares, "together:", sum(shares))
        print("the head:", [info.head for info in compute.broadcast(sky.instance_info)])

# slots: 4 nodes: [0, 1]
# map: [0, 1, 8, 27, 64, 125]
# as completed: [0, 1, 8, 27, 64, 125]
# awaited: [0, 1, 8, 27]
# by node: [1225, 3725] together: 4950
# the head: [True, False]
