"""A cable with delay, loss and rate, in user space: for kernels without netem.

`cable.py PID PORT` joins eth0 in the network of that process with PORT in ours, as two TAP devices. Each line of
standard input is JSON: `{"delay": seconds, "loss": 0 to 1, "rate": bytes per second}`.
"""

import fcntl
import json
import os
import random
import select
import struct
import sys
import time
from collections import deque

TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
CHECKSUM_AND_SEGMENTS = 1 | 2 | 4  # frames of up to 64 KiB cross in one read
FRAME = 70_000
QUEUE = 4_000

type Queue = deque[tuple[float, bytes]]


def tap(name: str) -> int:
    """Make a TAP device in the network this thread is in."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    fcntl.ioctl(fd, TUNSETOFFLOAD, CHECKSUM_AND_SEGMENTS)
    return fd


class Cable:
    """What is under way between two ends."""

    def __init__(self, one: int, other: int) -> None:
        self.peer = {one: other, other: one}
        self.queues: dict[int, Queue] = {one: deque(), other: deque()}  # by where the frames go
        self.free = {one: 0.0, other: 0.0}  # when the line that way is free again
        self.delay = self.loss = self.rate = 0.0
        self.heard = b""

    def carry(self) -> None:
        """Carry frames until standard input ends."""
        while True:
            due = [queue[0][0] for queue in self.queues.values() if queue]
            timeout = max(0.0, min(due) - time.monotonic()) if due else None
            ready, _, _ = select.select([*self.peer, 0], [], [], timeout)
            if 0 in ready and not self.listen():
                return
            for fd in ready:
                if fd:
                    self.take(fd)
            self.deliver()

    def listen(self) -> bool:
        """Take new settings; False when there will be no more."""
        data = os.read(0, 4096)
        *lines, self.heard = (self.heard + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            self.delay, self.loss, self.rate = said["delay"], said["loss"], said["rate"]
            os.write(1, b"set\n")
        return bool(data)

    def take(self, fd: int) -> None:
        """Read the frames that have come to one end, and say when each will be at the other."""
        to = self.peer[fd]
        for _ in range(64):
            try:
                frame = os.read(fd, FRAME)
            except BlockingIOError:
                return
            if random.random() < self.loss or len(self.queues[to]) > QUEUE:
                continue
            at = time.monotonic()
            if self.rate:
                at = self.free[to] = max(at, self.free[to]) + len(frame) / self.rate
            self.queues[to].append((at + self.delay, frame))

    def deliver(self) -> None:
        """Hand over the frames whose time has come."""
        now = time.monotonic()
        for to, queue in self.queues.items():
            while queue and queue[0][0] <= now:
                frame = queue.popleft()[1]
                try:
                    os.write(to, frame)
                except OSError:  # that end is down: the frame is lost
                    continue


def main() -> None:
    home, away = os.open("/proc/self/ns/net", os.O_RDONLY), os.open(f"/proc/{sys.argv[1]}/ns/net", os.O_RDONLY)
    os.setns(away, os.CLONE_NEWNET)
    far = tap("eth0")
    os.setns(home, os.CLONE_NEWNET)
    near = tap(sys.argv[2])
    os.write(1, b"ready\n")
    Cable(far, near).carry()


if __name__ == "__main__":
    main()
