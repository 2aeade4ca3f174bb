"""What the running Gateway consists of, wired together."""

import os
import socket
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from chain_gateway.accounting import Accountant
from chain_gateway.callbacks import reporter
from chain_gateway.clients import NftClient
from chain_gateway.config import ChainSettings, GatewaySettings
from chain_gateway.delivery import Timing
from chain_gateway.items import Collection, Collections
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
from mesh.config import ConfigurationError
from mesh.db import Database


def minting_wallet(settings: ChainSettings) -> tuple[HighloadWallet, Collections]:
    """The wallet of the configured key, and the collections that it owns."""
    wallet = _wallet(settings, settings.wallet_key_file)
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


def further_wallets(settings: ChainSettings) -> list[HighloadWallet]:
    """The other wallets that mint into them; raises `ConfigurationError` for a key named twice."""
    owner = _wallet(settings, settings.wallet_key_file)
    wallets = [_wallet(settings, path) for path in settings.minter_keys]
    if len({owner.address, *(wallet.address for wallet in wallets)}) <= len(wallets):
        raise ConfigurationError(
            "GATEWAY_MINTER_KEY_FILES: a key is named twice, or is the one of "
            "GATEWAY_WALLET_KEY_FILE; each wallet needs its own."
        )
    return wallets


def _wallet(settings: ChainSettings, key_file: Path) -> HighloadWallet:
    return HighloadWallet(MintingKey.load(key_file), settings.wallet_timeout_seconds)


class Gateway:
    """The Gateway without its RPC server; a context manager that starts and stops the workers."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.wallet, self.collections = minting_wallet(settings)
        self.wallets = [self.wallet, *further_wallets(settings)]
        self.chain = Chain(settings.network(), settings.ton_trust_level)
        self.database = Database(
            settings.database_url.get_secret_value(), application_name="gateway"
        )
        self._settings = settings
        self._channel = open_channel(settings.nft_address, settings.tls)
        self._reports = reporter(self.database, NftClient(self._channel))
        self._holder = f"{socket.gethostname()}/{os.getpid()}/{new_id()}"
        self._minters = [self._minter(wallet) for wallet in self.wallets]
        self.desk = OrderDesk(
            self.database, self._wake, daily_limit=settings.transfer_daily_limit_nanoton
        )
        self.links = WalletLinks(self.database, settings.domains, self._wake)
        self._stack = AsyncExitStack()

    def _minter(self, wallet: HighloadWallet) -> Minter:
        settings = self._settings
        addresses = frozenset(each.address for each in self.collections.values())
        lease = Lease(wallet.address, self._holder)
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
            wallet=wallet,
            collections=self.collections,
            limits=Limits(
                batch_mints=settings.batch_mints,
                messages_in_flight=settings.messages_in_flight,
                reserve=settings.reserve,
                dry_run=settings.dry_run,
            ),
        )
        return Minter(
            self.database,
            self.chain,
            lease,
            tracker=tracker,
            sender=sender,
            accountant=Accountant(self.database, self.chain, lease, wallet.timeout),
            collections=addresses,
            max_lag_seconds=settings.max_lag_seconds,
            on_change=self._reports.wake,
        )

    def _wake(self) -> None:
        for minter in self._minters:
            minter.wake()

    async def __aenter__(self) -> Self:
        parts: list[AbstractAsyncContextManager[object]] = [
            *(self.database, self._channel, self._reports, self.chain),
            *self._minters,
            self.desk,
        ]
        for part in parts:
            await self._stack.enter_async_context(part)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()
