"""``python -m vethwork`` is the command line."""

from vethwork.frontends.cli.main import main

if __name__ == "__main__":
    main()
