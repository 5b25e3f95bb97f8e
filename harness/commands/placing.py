"""What a stage is given of a cluster: the arguments of every command that holds a study against one."""

import argparse
import re

from harness.cluster.resources import Workers


def placing() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--workers",
        type=workers,
        default=(Workers(),),
        metavar="N|MIN:MAX|1/N[,...@PARAMETERS]",
        help="training workers a stage (default 1); with MIN:MAX it goes on with fewer when machines are lost and "
        "with more when they come; with 1/N, N stages share a GPU; 1/4,1@50M,8@600M is 8 from 600M parameters on",
    )
    parser.add_argument(
        "--generator-gpus",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of a worker's GPU (default 0: CPUs generate)",
    )
    parser.add_argument(
        "--in-trial",
        action="store_true",
        help="stages of one worker run in the process of their trial, which the next stage finds warm: for many short "
        "stages; their tokens are generated there too",
    )
    return parser


def workers(text: str) -> tuple[Workers, ...]:
    """What stages get, from `N`, `MIN:MAX` or `1/N`, each but the first with `@PARAMETERS` from which on it holds."""
    return tuple(_workers(part, first=i == 0) for i, part in enumerate(text.split(",")))


def _workers(text: str, first: bool) -> Workers:
    unit = {"": 1.0, "k": 1e3, "M": 1e6, "B": 1e9}
    found = re.fullmatch(r"(?:([1-9]\d*)(?::([1-9]\d*))?|1/([1-9]\d*))(?:@(\d+(?:\.\d+)?)([kMB]?))?", text, re.ASCII)
    if found is None or (found[4] is None) != first:
        where = "" if first else "@PARAMETERS, such as 8@600M"
        raise argparse.ArgumentTypeError(f"{text!r} is none of N, MIN:MAX and 1/N (stages to a GPU){where}")
    fewest = int(found[1] or 1)
    most = int(found[2] or fewest)
    if fewest > most:
        raise argparse.ArgumentTypeError(f"{text!r} has a MIN above its MAX")
    return Workers(most, fewest, int(found[3] or 1), 0.0 if first else float(found[4]) * unit[found[5]])
