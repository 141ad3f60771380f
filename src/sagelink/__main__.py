"""`python -m sagelink`: the `sagelink` command."""

from sagelink.app.cli import main

if __name__ == "__main__":
    main()
