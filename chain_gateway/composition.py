"""What the running Gateway consists of, wired together."""

import os
import socket
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from chain_gateway.callbacks import reporter
from chain_gateway.clients import NftClient
from chain_gateway.config import ChainSettings, GatewaySettings
from chain_gateway.delivery import Timing
from chain_gateway.items import NANOTON, Collection, Collections
from chain_gateway.minting import Minter
from chain_gateway.operations import Standard
from chain_gateway.orders import OrderDesk
from chain_gateway.ownership import WalletLinks
from chain_gateway.sending import Limits, Sender
from chain_gateway.store.lease import Lease
from chain_gateway.ton import Chain
from chain_gateway.tracker import Tracker
from chain_gateway.wallet import HighloadWallet, MintingKey
from mesh.client import open_channel
from mesh.clock import new_id
from mesh.db import Database


def minting_wallet(settings: ChainSettings) -> tuple[HighloadWallet, Collections]:
    """The wallet of the configured key, and the collections that it owns."""
    key = MintingKey.load(settings.wallet_key_file)
    wallet = HighloadWallet(key, settings.wallet_timeout_seconds)
    names = {
        Standard.NFT: (settings.collection_name, settings.collection_description),
        Standard.SBT: (settings.sbt_collection_name, settings.sbt_collection_description),
    }
    collections = {
        standard: Collection(
            wallet.address,
            name=name,
            description=description,
            image=settings.collection_image,
            standard=standard,
        )
        for standard, (name, description) in names.items()
    }
    return wallet, collections


class Gateway:
    """The Gateway without its RPC server; a context manager that starts and stops the workers."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.wallet, self.collections = minting_wallet(settings)
        addresses = frozenset(each.address for each in self.collections.values())
        self.chain = Chain(settings.network(), settings.ton_trust_level)
        self.database = Database(
            settings.database_url.get_secret_value(), application_name="gateway"
        )
        self._channel = open_channel(settings.nft_address, settings.tls)
        self._reports = reporter(self.database, NftClient(self._channel))
        lease = Lease(self.wallet.address, f"{socket.gethostname()}/{os.getpid()}/{new_id()}")
        tracker = Tracker(
            self.database,
            self.chain,
            lease,
            collections=addresses,
            timing=Timing(settings.wallet_timeout_seconds, settings.delivery_grace_seconds),
            finality_blocks=settings.finality_blocks,
        )
        sender = Sender(
            self.database,
            self.chain,
            lease,
            wallet=self.wallet,
            collections=self.collections,
            limits=Limits(
                batch_mints=settings.batch_mints,
                messages_in_flight=settings.messages_in_flight,
                reserve=int(settings.reserve_ton * NANOTON),
            ),
        )
        self._minter = Minter(
            self.database,
            self.chain,
            lease,
            tracker=tracker,
            sender=sender,
            collections=addresses,
            max_lag_seconds=settings.max_lag_seconds,
            on_change=self._reports.wake,
        )
        self.desk = OrderDesk(
            self.database,
            self._minter.wake,
            daily_limit=settings.transfer_daily_limit_nanoton,
        )
        self.links = WalletLinks(self.database, settings.domains, self._minter.wake)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for part in (
            self.database, self._channel, self._reports, self.chain, self._minter, self.desk
        ):  # fmt: skip
            await self._stack.enter_async_context(part)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()
