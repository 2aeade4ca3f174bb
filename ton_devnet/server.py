"""One running network: the chain, its producer and its lite-server, put together."""

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib.resources import files

from ton_devnet.adnl import AdnlServer
from ton_devnet.answers import Answers
from ton_devnet.chain import Chain
from ton_devnet.clock import Clock, ManualClock, WallClock
from ton_devnet.control import Commands, ControlServer
from ton_devnet.engine import Engine, parse_config
from ton_devnet.faucet import FAUCET, genesis_account
from ton_devnet.faults import Faults
from ton_devnet.folder import StateFolder, StateFolderError
from ton_devnet.intake import Intake
from ton_devnet.producer import Producer
from ton_devnet.queries import LiteServer
from ton_devnet.store import Store
from ton_devnet.validator import Validator

HOST = "127.0.0.1"
CONFIG = files("ton_devnet") / "config.boc.b64"
_PORT = "port"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """`port` None: the port of the last run, or a free one. Intervals in seconds."""

    port: int | None
    block_interval: float
    idle_interval: float
    clock_offset: int | None
    manual_clock: bool
    start_time: int | None
    """Of a manual clock that has no time yet; None: the wall's."""


@dataclass(frozen=True, slots=True)
class Network:
    """A network that can be reached; `failed` ends only by the producer's failure."""

    port: int
    chain: Chain
    failed: asyncio.Task[None]


@contextlib.asynccontextmanager
async def running(folder: StateFolder, options: Options) -> AsyncIterator[Network]:
    """Open or begin the network in the folder, serve it, and write its config file."""
    folder.create()
    # Accounts and blocks have no cycles, yet walking through them again and again would take most
    # of the time on a network with many accounts.
    gc.set_threshold(50_000, 20, 100)
    with folder.locked(), contextlib.closing(Store(folder.database)) as store:
        validator = Validator(folder.key("validator"))
        config = validator.elected_in(parse_config(CONFIG.read_text()))
        clock = _clock(store, options)
        chain = Chain(store, Engine(config), config, clock)
        if chain.is_new:
            chain.endow(dict([genesis_account(folder.key(FAUCET), chain.now())]))
        gc.collect()
        gc.freeze()
        # A lite-client that trusts only the first block needs a second one to step to.
        chain.produce()
        producer = Producer(
            chain, block_interval=options.block_interval, idle_interval=options.idle_interval
        )
        key = folder.key("liteserver")
        faults = Faults()
        intake = Intake(chain, producer, faults)
        lite_server = LiteServer(Answers(chain, validator, intake.take), producer, faults)
        adnl = AdnlServer(key, lite_server.answer)
        port = await _listen(adnl, store, options.port)
        control = ControlServer(Commands(chain, producer, clock, faults, intake, lite_server.names))
        folder.write_control(await control.listen(), control.token)
        folder.write_global_config(port, key, chain.key_block.master.id)
        task = asyncio.create_task(producer.run())
        try:
            yield Network(port, chain, task)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await control.close()
            await adnl.close()


def _clock(store: Store, options: Options) -> Clock:
    if not options.manual_clock:
        return WallClock(store, options.clock_offset)
    start = options.start_time
    return ManualClock(store, int(time.time()) if start is None else start)


async def _listen(adnl: AdnlServer, store: Store, wanted: int | None) -> int:
    """Clients keep their config file over a restart, so the port stays the same if it can."""
    remembered = store.setting(_PORT)
    try:
        port = await adnl.listen(HOST, wanted if wanted is not None else remembered or 0)
    except OSError as error:
        if wanted is not None or remembered is None:
            raise StateFolderError(
                f"cannot listen on port {wanted}: {error.strerror}; choose another with --port,"
                " or 0 for any free one"
            ) from None
        log.warning("port %d of the last run is taken; choosing another", remembered)
        port = await adnl.listen(HOST, 0)
    store.set(_PORT, port)
    return port
