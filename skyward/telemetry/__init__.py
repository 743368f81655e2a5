"""What is known of a run: its log of events, its report, and the stacks of running calls."""
