"""Records of runs, read back: the documented name of `skyward.telemetry.event_log`."""

from skyward.telemetry.event_log import read

__all__ = ["read"]
