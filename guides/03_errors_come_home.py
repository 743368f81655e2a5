"""An error on a node reaches the caller: with its own type, with the remote traceback, and never as a hang."""

import os
import threading

import skyward as sky


def divide(a: int, b: int) -> float:
    return a / b


def use(lock: object) -> None: ...


def crash() -> None:
    os._exit(7)


if __name__ == "__main__":
    with sky.Compute(worker=sky.Worker(concurrency=2)) as compute:
        try:
            compute.submit(divide, 1, 0).result()
        except ZeroDivisionError as error:
            print("itself:", error)
            print("raised on the node:", "return a / b" in str(error.__cause__))
        try:
            compute.submit(use, {"guard": threading.Lock()}).result()
        except sky.NotPortable as error:
            print("cannot be pickled:", error.path)
        try:
            compute.submit(crash).result()
        except sky.BatchLost as error:
            print("tried:", len(error.causes), "times; the last:", error.causes[-1].partition(": ")[2])
        print("the slot is back:", compute.submit(divide, 1, 4).result())

# itself: division by zero
# raised on the node: True
# cannot be pickled: args[0]["guard"]
# tried: 3 times; the last: exit code 7
# the slot is back: 0.25
