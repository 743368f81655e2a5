"""Calls and results to bytes and back, on both ends."""
