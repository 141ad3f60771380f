"""Calculates the brokers, servers and cost that N cameras need. Nothing is measured; every input is an option.

python -m bench.scaling [--fps 5] [--offloaded 0.3] [--bytes 2500] [--units 96] [--tokens 1e6] ...
"""

from __future__ import annotations

import argparse
import math

CAMERAS = (10, 100, 1_000, 10_000, 100_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--fps", type=float, default=5.0, help="frames/s that a camera scores")
    add("--offloaded", type=float, default=0.3, help="share of frames that are sent")
    add("--bytes", type=float, default=2500, help="bytes per message on the wire")
    add("--units", type=float, default=96, help="units per message")
    add("--padding", type=float, default=0.2, help="padding, as a share of the units")
    add("--tokens", type=float, default=1e6, help="tokens/s of the server's model on one accelerator")
    add("--load", type=float, default=0.6, help="planned utilisation of a machine, 0 to 1")
    add("--broker", type=float, default=50_000, help="messages/s in and out of one broker node")
    add("--gpu-price", type=float, default=1.0, help="price per hour of one accelerator with its machine")
    add("--broker-price", type=float, default=0.2, help="price per hour of one broker node")
    arguments = parser.parse_args()

    print(", ".join(f"{name} {value:g}" for name, value in vars(arguments).items()))
    print("| cameras | messages/s up | Mbit/s up | tokens/s | accelerators | broker nodes | money a camera and month |")
    print("|---|---|---|---|---|---|---|")
    for cameras in CAMERAS:
        messages = cameras * arguments.fps * arguments.offloaded
        tokens = messages * (arguments.units * (1 + arguments.padding) + 1)
        accelerators = math.ceil(tokens / (arguments.tokens * arguments.load))
        # A sent frame passes the broker four times: evidence in and out, reply in and out.
        brokers = math.ceil(4 * messages / (arguments.broker * arguments.load))
        month = 730 * (accelerators * arguments.gpu_price + brokers * arguments.broker_price) / cameras
        mbit = messages * arguments.bytes * 8 / 1e6
        cells = f"{cameras:,} | {messages:,.0f} | {mbit:,.1f} | {tokens:,.0f}"
        print(f"| {cells} | {accelerators} | {brokers} | {month:.2f} |")


if __name__ == "__main__":
    main()
