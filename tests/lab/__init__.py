"""Hosts on one Linux machine, for tests: own addresses, file systems and processes, real OpenSSH, and faults on demand.

    lab.py         the network, the keys and the configuration of ssh: `Lab`
    host.py        one host and what can happen to it: `Host`
    cable.py       a cable with delay, loss and rate in user space, for kernels without netem
    limits.py      memory and processors of a host
    layer.py       a Python of the host's own
    init.sh        its PID 1: file system, address
    boot.sh        its first boot: accounts, sshd

    cloud.py       an EC2 whose machines are hosts: `Cloud`
    endpoint.py    its HTTP: faults, client tokens, counts, capacity
    firstboot.py   what its machines make of user data
    metadata.py    its metadata service
    market.py      its prices

Everything is in a network namespace of the test process that has no way out. Hosts die with the process that made them.
"""
