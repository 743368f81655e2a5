"""Everything about running a function elsewhere; all that a node imports."""
