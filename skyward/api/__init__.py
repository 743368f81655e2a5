"""What a user holds: a pool, and what libraries expect of it as an executor."""
