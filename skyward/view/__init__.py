"""The display of a run, drawn from its events alone: in a terminal or notebook, as lines, and as a page."""
