"""The actors on the user's machine, each beside the pure module that decides for it. Private as a whole."""
