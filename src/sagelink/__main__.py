"""Runs the `sagelink` command: `python -m sagelink`."""

import sys


def main() -> None:
    """Entry point; Ctrl-C while Python still reads the modules ends with one line too."""
    try:
        from sagelink.app.cli import main as run
    except KeyboardInterrupt:
        sys.exit("sagelink: interrupted before there was a result")
    run()


if __name__ == "__main__":
    main()
