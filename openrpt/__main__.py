"""`python -m openrpt`: the same as the command `openrpt`."""

from openrpt.cli.main import main

if __name__ == "__main__":
    main()
