"""``python -m bench pods``, ``python -m bench streams``: run a measurement and print what it found."""

from __future__ import annotations

import argparse
import sys

from bench import pods, streams
from e2e.harness.errors import HarnessError


def main() -> int:
    """Run what was asked for; exit code 1 when something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    measurements = parser.add_subparsers(required=True, metavar="MEASUREMENT")
    pods.add_arguments(measurements.add_parser("pods", help=pods.__doc__))
    streams.add_arguments(measurements.add_parser("streams", help=streams.__doc__))
    arguments = parser.parse_args()
    try:
        return int(arguments.run(arguments))
    except HarnessError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    sys.exit(main())
