"""Command line: `serve` a local TON network, `fund` an address on it."""

import argparse
import asyncio
import decimal
import logging
import signal
import sys
from pathlib import Path

from pytoniq_core.boc.address import Address

from ton_devnet.chain import StateDamagedError
from ton_devnet.faucet import FAUCET_BALANCE, NANOTONS, fund
from ton_devnet.folder import StateFolder, StateFolderError
from ton_devnet.server import Options, running

_EPILOG = """\
examples:
  python -m ton_devnet serve --state .dev/ton
  python -m ton_devnet fund --state .dev/ton UQCD39VS5jcptHL8vMjEXrzGaRcCVYto7HUn4bpAOg8xqEBI 100

Any lite-client connects with the file DIR/global.config.json, which appears once the server can be
reached. The state folder holds the whole network: stop it, kill it, copy it, start it again."""


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ton_devnet",
        description="A local TON network: real TVM, real lite-server, real proofs, no internet.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="run the network until SIGTERM or Ctrl-C")
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
    serve.add_argument(
        "--clock-offset",
        type=int,
        metavar="S",
        help="set chain time this far from the wall clock, and remember it; wallets that sign"
        " by the wall clock stop working when it is far ahead",
    )
    serve.add_argument("--verbose", action="store_true", help="log every block and dropped message")
    give = commands.add_parser("fund", help="send TON from the faucet and wait for it to arrive")
    give.add_argument("address", type=_address, metavar="ADDRESS")
    give.add_argument("nanotons", type=_nanotons, metavar="AMOUNT_TON", help="such as 100 or 0.5")
    give.add_argument(
        "--up-to", action="store_true", help="send only what the balance lacks of AMOUNT_TON"
    )
    for command in (serve, give):
        command.add_argument(
            "--state", type=Path, required=True, metavar="DIR", help="folder of this network"
        )
    return parser


async def _serve(folder: StateFolder, options: Options) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running(folder, options) as network:
        print(
            f"lite-server on port {network.port}, head at block {network.chain.head.step.seqno};"
            f" clients connect with {folder.global_config}",
            flush=True,
        )
        stopped = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait({stopped, network.failed}, return_when=asyncio.FIRST_COMPLETED)
        if network.failed in done:
            network.failed.result()
    print("stopped; the network goes on from here at the next start", flush=True)


async def _fund(folder: StateFolder, address: Address, nanotons: int, up_to: bool) -> None:
    balance = await fund(folder, address, nanotons, up_to=up_to)
    print(f"{address.to_str(is_bounceable=False)} has {decimal.Decimal(balance) / NANOTONS} TON")


def main() -> int:
    arguments = _parser().parse_args()
    folder = StateFolder(arguments.state)
    try:
        if arguments.command == "serve":
            level = logging.DEBUG if arguments.verbose else logging.WARNING
            logging.basicConfig(
                level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s"
            )
            options = Options(
                arguments.port,
                arguments.block_interval,
                arguments.idle_interval,
                arguments.clock_offset,
            )
            asyncio.run(_serve(folder, options))
        else:
            asyncio.run(_fund(folder, arguments.address, arguments.nanotons, arguments.up_to))
    except (StateFolderError, StateDamagedError) as error:
        print(f"ton_devnet: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
