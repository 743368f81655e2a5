"""How calls are grouped, packed and completed: the way of a call on the caller's side, before and after the actors."""
