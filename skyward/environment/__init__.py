"""What a node's Python environment is made of, beside what the machine has."""
