"""Runs the `sagelink` command: `python -m sagelink`."""

from sagelink.app.cli import main

if __name__ == "__main__":
    main()
