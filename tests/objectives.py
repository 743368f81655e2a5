"""What libraries evaluate on nodes: each function says of its argument alone what it gives."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def peak(x: float) -> float:
    return x + 0.01 / (0.01 + x * x)


def log_likelihood(x: Sequence[float]) -> float:
    return -0.5 * math.fsum(each * each for each in x)


def named_log_likelihood(x: Mapping[str, float]) -> float:
    return log_likelihood([*x.values()])


def to_the_square(unit: Any) -> Any:
    """The prior of dynesty and nautilus: points of the unit square, between -5 and 5."""
    return 10 * np.asarray(unit) - 5


def sphere(x: Sequence[float]) -> float:
    return math.fsum((each - 0.3) ** 2 for each in x)


def line_residual(parameters: Any, x: Any, y: Any) -> Any:
    return (parameters["slope"] * x + parameters["offset"] - y) / 0.1


def square_and_place(x: int) -> tuple[int, int]:
    return x * x, os.getpid()
