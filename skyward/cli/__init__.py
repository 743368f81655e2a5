"""The command `skyward`. `main` finds the command that was asked for; each has a file of its own."""
