"""Other people's APIs, running on a pool."""

from skyward.plugins.joblib import joblib
from skyward.plugins.plugin import Plugin, Pool

__all__ = ["Plugin", "Pool", "joblib"]
