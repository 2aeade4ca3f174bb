"""What `python -m ton_devnet` takes on its command line."""

import argparse
import decimal
from pathlib import Path

from pytoniq_core.boc.address import Address

from ton_devnet.faucet import FAUCET_BALANCE, NANOTONS

_EPILOG = """\
examples:
  python -m ton_devnet serve --state .dev/ton
  python -m ton_devnet fund --state .dev/ton UQCD39VS5jcptHL8vMjEXrzGaRcCVYto7HUn4bpAOg8xqEBI 100
  python -m ton_devnet fault drop --state .dev/ton --next 3
  python -m ton_devnet fault rollback --state .dev/ton 5
  python -m ton_devnet fault clear --state .dev/ton

Any lite-client connects with the file DIR/global.config.json, which appears once the server can be
reached. The state folder holds the whole network: stop it, kill it, copy it, start it again."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """`command`, `state`, and what the command takes; `action` for `fault` and `clock`."""
    parser = argparse.ArgumentParser(
        prog="python -m ton_devnet",
        description="A local TON network: real TVM, real lite-server, real proofs, no internet.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    state = argparse.ArgumentParser(add_help=False)
    state.add_argument(
        "--state", type=Path, required=True, metavar="DIR", help="folder of this network"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _serve(commands.add_parser("serve", parents=[state], help="run until SIGTERM or Ctrl-C"))
    give = commands.add_parser(
        "fund", parents=[state], help="send TON from the faucet and wait for it to arrive"
    )
    give.add_argument("address", type=_address, metavar="ADDRESS")
    give.add_argument("nanotons", type=_nanotons, metavar="AMOUNT_TON", help="such as 100 or 0.5")
    give.add_argument(
        "--up-to", action="store_true", help="send only what the balance lacks of AMOUNT_TON"
    )
    _fault(commands.add_parser("fault", help="make the running network misbehave"), state)
    _clock(commands.add_parser("clock", help="move the time of a manual clock"), state)
    commands.add_parser("status", parents=[state], help="head, time, queue and faults, as JSON")
    return parser.parse_args(arguments)


def _serve(serve: argparse.ArgumentParser) -> None:
    serve.add_argument("--port", type=int, help="default: that of the last run, or a free one")
    serve.add_argument(
        "--block-interval",
        type=_seconds,
        default=0.02,
        metavar="S",
        help="wait this long to gather messages into one block (default %(default)s s)",
    )
    serve.add_argument(
        "--idle-interval",
        type=_seconds,
        default=2.0,
        metavar="S",
        help="make an empty block this often when nothing happens (default %(default)s s)",
    )
    time = serve.add_mutually_exclusive_group()
    time.add_argument(
        "--clock-offset",
        type=int,
        metavar="S",
        help="set chain time this far from the wall clock, and remember it; wallets that sign"
        " by the wall clock stop working when it is far ahead",
    )
    time.add_argument(
        "--clock",
        choices=("wall", "manual"),
        default="wall",
        help="manual: time moves only by `clock`, and is remembered (default %(default)s)",
    )
    serve.add_argument(
        "--start-time",
        type=int,
        metavar="UNIX",
        help="where a manual clock that has never run begins (default: now)",
    )
    serve.add_argument("--verbose", action="store_true", help="log every block and dropped message")


def _fault(fault: argparse.ArgumentParser, state: argparse.ArgumentParser) -> None:
    limits = argparse.ArgumentParser(add_help=False)
    limits.add_argument("--next", type=int, metavar="N", help="only the next N (default: all)")
    limits.add_argument(
        "--share", type=float, default=1.0, metavar="P", help="hit this share, 0 to 1 (default 1)"
    )
    queries = argparse.ArgumentParser(add_help=False)
    queries.add_argument(
        "queries", nargs="*", metavar="QUERY", help="such as getAccountState (default: every query)"
    )
    actions = fault.add_subparsers(dest="action", required=True, metavar="FAULT")
    actions.add_parser(
        "drop", parents=[state, limits], help="accept external messages and lose them"
    )
    delay = actions.add_parser(
        "delay", parents=[state, limits], help="accept external messages, queue them later"
    )
    delay.add_argument("seconds", type=_seconds, metavar="SECONDS")
    error = actions.add_parser(
        "error", parents=[state, limits, queries], help="answer queries with an error"
    )
    error.add_argument("--code", type=int, default=652, help="(default %(default)s)")
    error.add_argument("--message", default="timeout", help="(default %(default)s)")
    actions.add_parser(
        "timeout", parents=[state, limits, queries], help="never answer these queries"
    )
    actions.add_parser("freeze", parents=[state], help="make no more blocks")
    actions.add_parser("thaw", parents=[state], help="make blocks again")
    blocks = actions.add_parser("blocks", parents=[state], help="make blocks now, frozen or not")
    blocks.add_argument("count", type=int, nargs="?", default=1, metavar="N")
    rollback = actions.add_parser("rollback", parents=[state], help="undo the newest blocks")
    rollback.add_argument("blocks", type=int, metavar="N")
    rollback.add_argument(
        "--lose-externals",
        action="store_true",
        help="lose the external messages in them (default: they run again)",
    )
    actions.add_parser("clear", parents=[state], help="end all faults, thaw the head")


def _clock(clock: argparse.ArgumentParser, state: argparse.ArgumentParser) -> None:
    actions = clock.add_subparsers(dest="action", required=True, metavar="HOW")
    advance = actions.add_parser("advance", parents=[state], help="move it on")
    advance.add_argument("advance", type=int, metavar="SECONDS")
    to = actions.add_parser("set", parents=[state], help="move it to a unix time")
    to.add_argument("utime", type=int, metavar="UNIX")


def _address(text: str) -> Address:
    try:
        address = Address(text)
    except Exception:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a TON address; give it as 0:<64 hex digits> or in base64 form"
        ) from None
    if address.wc != 0:
        raise argparse.ArgumentTypeError("only workchain 0 has accounts here")
    return address


def _nanotons(text: str) -> int:
    try:
        amount = int(decimal.Decimal(text) * NANOTONS)
    except (decimal.InvalidOperation, ValueError, OverflowError):
        amount = 0
    if not 0 < amount < FAUCET_BALANCE:
        raise argparse.ArgumentTypeError(
            f"{text!r}: give an amount in TON above 0 and below {FAUCET_BALANCE // NANOTONS:,}"
        )
    return amount


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.001 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r}: give 0.001 to 3600 seconds")
    return seconds
