"""Nodes on machines that are reached by SSH, and the way to them, which `providers.aws` goes as well."""
