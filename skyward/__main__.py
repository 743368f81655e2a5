"""`python -m skyward`: the command line."""

from skyward.cli.main import main

if __name__ == "__main__":
    main()
