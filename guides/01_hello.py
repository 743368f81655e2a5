"""Run a function on another machine: decorate it, and call it inside a block."""

import skyward as sky


@sky.remote
def square(x: int) -> int:
    return x * x


if __name__ == "__main__":
    print("here:", square(3))  # no block is open: a plain call
    with sky.Compute(nodes=2, worker=sky.Worker(concurrency=2)):
        print("on a slot:", square(3))  # waits for the value
        future = square.remote(4)  # does not wait
        print("a future:", future.result())
        print("many:", list(square.map(range(5))))
        print("on node 1, for a minute at most:", square.options(node=1, timeout=60)(6))

# here: 9
# on a slot: 9
# a future: 16
# many: [0, 1, 4, 9, 16]
# on node 1, for a minute at most: 36
