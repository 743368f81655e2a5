"""What the user writes, checked before anything starts."""
