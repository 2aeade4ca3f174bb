"""Mints called off that the Gateway has, or may have."""

from typing import Protocol

from go2asia.gateway.v1 import minting_pb2

from mesh.db import Database
from nft_svc.audit import Origin
from nft_svc.errors import MintNotFound
from nft_svc.handover import Handover
from nft_svc.store import reads


class Gateway(Protocol):
    """What calling off needs of the Gateway; `clients.GatewayClient` has it."""

    async def cancel(self, mint_id: str) -> minting_pb2.Operation | None:
        """Calls an order off; raises `MintHandedOver` if it was sent, or may have been."""


class Cancelling:
    """Calls mints off at the Gateway, and takes over what it answers."""

    def __init__(self, database: Database, gateway: Gateway, handover: Handover) -> None:
        self._database = database
        self._gateway = gateway
        self._handover = handover

    async def call_off(self, mint_id: str, origin: Origin) -> None:
        """Calls a mint off; raises `MintNotFound` or `MintHandedOver`.

        An order that is still on its way has no operation yet. The Gateway remembers that it is
        called off, and takes it as cancelled whenever it comes; so it is handed over at once. A
        crash in between loses nothing: the order is still in the outbox, or the Gateway's own
        report on its way.
        """
        operation = await self._gateway.cancel(mint_id)
        if operation is not None:
            await self._handover.take(operation, origin)
            return
        async with self._database.transaction(read_only=True) as connection:
            mint = await reads.mint(connection, mint_id)
        if mint is None:
            raise MintNotFound(field="mint_id", mint_id=mint_id)
        await self._handover.submit(mint, origin)
