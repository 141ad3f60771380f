"""The plan on paper: what N cameras ask of brokers and servers, and what each costs. Every input is an option.

python -m bench.scaling [--fps 5] [--offloaded 0.3] [--bytes 2500] [--units 96] [--tokens 1e6] ...
"""

from __future__ import annotations

import argparse
import math

CAMERAS = (10, 100, 1_000, 10_000, 100_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--fps", type=float, default=5.0, help="frames a camera scores a second")
    add("--offloaded", type=float, default=0.3, help="share of frames that are sent")
    add("--bytes", type=float, default=2500, help="of a message on the wire")
    add("--units", type=float, default=96, help="units of a message")
    add("--padding", type=float, default=0.2, help="padding beside them, as a share")
    add("--tokens", type=float, default=1e6, help="tokens/s of the server's model on one accelerator")
    add("--load", type=float, default=0.6, help="share of its capacity that a machine is given")
    add("--broker", type=float, default=50_000, help="messages/s in and out of one broker node")
    add("--gpu-price", type=float, default=1.0, help="money an hour of one accelerator with its machine")
    add("--broker-price", type=float, default=0.2, help="money an hour of one broker node")
    given = parser.parse_args()

    print(", ".join(f"{name} {value:g}" for name, value in vars(given).items()))
    print("| cameras | messages/s up | Mbit/s up | tokens/s | accelerators | broker nodes | money a camera and month |")
    print("|---|---|---|---|---|---|---|")
    for cameras in CAMERAS:
        messages = cameras * given.fps * given.offloaded
        tokens = messages * (given.units * (1 + given.padding) + 1)
        accelerators = math.ceil(tokens / (given.tokens * given.load))
        # Each frame passes the broker four times: evidence in and out, reply in and out.
        brokers = math.ceil(4 * messages / (given.broker * given.load))
        month = 730 * (accelerators * given.gpu_price + brokers * given.broker_price) / cameras
        mbit = messages * given.bytes * 8 / 1e6
        asked = f"{cameras:,} | {messages:,.0f} | {mbit:,.1f} | {tokens:,.0f}"
        print(f"| {asked} | {accelerators} | {brokers} | {month:.2f} |")


if __name__ == "__main__":
    main()
