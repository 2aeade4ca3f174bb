"""A mint handed to the Gateway now, by whoever cannot wait for the outbox."""

from typing import Protocol

from go2asia.gateway.v1 import minting_pb2

from nft_svc.audit import Origin
from nft_svc.convert_orders import Order, operation_report, order
from nft_svc.mints import Mint
from nft_svc.reports import News, Reports


class Gateway(Protocol):
    """What handing over needs of the Gateway; `clients.GatewayClient` has it."""

    async def submit(self, order: Order) -> minting_pb2.Operation:
        """The operation of an order; raises what the order is refused with."""


class Handover:
    """Hands mints over one by one; the Gateway takes each once, however often it is handed over."""

    def __init__(self, gateway: Gateway, reports: Reports) -> None:
        self._gateway = gateway
        self._reports = reports

    async def submit(self, mint: Mint, origin: Origin) -> None:
        """Orders a mint and takes over where it stands; raises what the Gateway refuses it with."""
        await self.take(await self._gateway.submit(order(mint)), origin)

    async def take(self, operation: minting_pb2.Operation, origin: Origin) -> None:
        """Takes over where the Gateway's operation stands."""
        await self._reports.apply([News(operation_report(operation), origin)])
