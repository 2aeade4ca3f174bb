"""A mint handed to the Gateway now, by whoever cannot wait for the outbox."""

from collections.abc import Sequence
from typing import Protocol

from go2asia.gateway.v1 import minting_pb2

from mesh.errors import MeshError
from nft_svc import convert
from nft_svc.audit import Origin
from nft_svc.mints import Mint
from nft_svc.reports import News, Reports


class Gateway(Protocol):
    """What handing over needs of the Gateway; `clients.GatewayClient` has it."""

    async def submit_mints(
        self, orders: Sequence[minting_pb2.MintOrder]
    ) -> Sequence[minting_pb2.Operation | MeshError]:
        """For each order its operation or why it was refused."""


class Handover:
    """Hands mints over one by one; the Gateway takes each once, however often it is handed over."""

    def __init__(self, gateway: Gateway, reports: Reports) -> None:
        self._gateway = gateway
        self._reports = reports

    async def submit(self, mint: Mint, origin: Origin) -> None:
        """Orders a mint and takes over where it stands; raises what the Gateway refuses it with."""
        order = convert.mint_order(mint.content, mint.mint_id, mint.user_id)
        (answer,) = await self._gateway.submit_mints([order])
        if isinstance(answer, MeshError):
            raise answer
        await self.take(answer, origin)

    async def take(self, operation: minting_pb2.Operation, origin: Origin) -> None:
        """Takes over where the Gateway's operation stands."""
        await self._reports.apply([News(convert.operation_report(operation), origin)])
