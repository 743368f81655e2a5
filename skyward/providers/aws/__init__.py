"""Nodes on Amazon EC2: `aws` is what the user writes, and says which file does what."""
