"""Command line: `serve` a local TON network, `fund` an address on it, give it a `fault`."""

import argparse
import asyncio
import decimal
import json
import logging
import signal
import sys

from pytoniq_core.boc.address import Address

from ton_devnet.arguments import parse
from ton_devnet.chain import StateDamagedError
from ton_devnet.controller import Controller, ControlRefusedError
from ton_devnet.faucet import NANOTONS, fund
from ton_devnet.folder import StateFolder, StateFolderError
from ton_devnet.server import Options, running
from ton_devnet.store import StoreVersionError
from ton_devnet.trie import TrieError

_EXPECTED = (
    StateFolderError,
    StateDamagedError,
    StoreVersionError,
    TrieError,
    ControlRefusedError,
)


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


async def _tell(folder: StateFolder, given: argparse.Namespace) -> None:
    arguments = dict(vars(given))
    del arguments["state"]
    command, action = arguments.pop("command"), arguments.pop("action", None)
    name = action if command == "fault" else command
    print(json.dumps(await Controller(folder).send(name, **arguments), indent=2))


def _options(given: argparse.Namespace) -> Options:
    return Options(
        given.port,
        given.block_interval,
        given.idle_interval,
        given.clock_offset,
        given.clock == "manual",
        given.start_time,
    )


def main() -> int:
    given = parse()
    folder = StateFolder(given.state)
    try:
        if given.command == "serve":
            level = logging.DEBUG if given.verbose else logging.WARNING
            logging.basicConfig(
                level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s"
            )
            asyncio.run(_serve(folder, _options(given)))
        elif given.command == "fund":
            asyncio.run(_fund(folder, given.address, given.nanotons, given.up_to))
        else:
            asyncio.run(_tell(folder, given))
    except _EXPECTED as error:
        print(f"ton_devnet: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
