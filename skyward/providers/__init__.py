"""Providers, which launch machines and connect to them."""
