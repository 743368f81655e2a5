"""What Skyward costs, and what its peers cost in the same shape: `python -m bench SCENARIO` prints one JSON line.

    __main__.py    the command line, and nothing else
    plan.py        PURE  what to run: the words of one command
    scenarios.py   what is measured, and how
    data.py        arrays that are shared, results that are large, a search
    links.py       nodes far away, nodes of different speed
    tunnel.py      our tunnel beside `ssh -L`
    backends.py    where it runs: skyward, loky, ray, dask, threading
    tasks.py       the functions that travel to the workers
    measure.py     one run of one plan, as one JSON line
    figures.py     PURE  percentiles, medians, ratios
    memory.py      what each kind of process holds
    versus.py      several backends in one invocation, and their ratio

Nothing here asserts a time: a number is printed beside the machine's load, and a reader judges it.
"""
