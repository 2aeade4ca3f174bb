"""Starts the Chain Gateway: `python -m chain_gateway`, configured by GATEWAY_* variables.

`python -m chain_gateway address` prints the minting wallet's address, `… setup` deploys the wallet
and the collections, `… doctor` says what keeps it from minting; none of them needs a database.
"""

import sys

from go2asia.gateway.v1 import (
    chain_pb2,
    chain_pb2_grpc,
    minting_pb2,
    minting_pb2_grpc,
    wallets_pb2,
    wallets_pb2_grpc,
)

from chain_gateway.composition import Gateway, minting_wallet
from chain_gateway.config import ChainSettings, GatewaySettings
from chain_gateway.doctor import Verdict, examine
from chain_gateway.servicer import ChainServicer, MintingServicer, WalletLinkServicer
from chain_gateway.setup import set_up
from chain_gateway.ton import Chain
from mesh import telemetry
from mesh.config import ConfigurationError
from mesh.migrate import migrate
from mesh.server import Registration, run, serve


async def main() -> None:
    """Migrates if asked to, then serves and mints until told to stop."""
    settings = GatewaySettings()
    telemetry.start("gateway", settings)
    if settings.migration_url is not None:
        await migrate("chain_gateway", settings.migration_url.get_secret_value())
    async with Gateway(settings) as gateway:
        minting = MintingServicer(gateway.desk, gateway.database)
        chain = ChainServicer(
            gateway.chain,
            gateway.database,
            gateway.wallet.address,
            gateway.collections,
            settings.finality_blocks,
        )
        links = WalletLinkServicer(gateway.links)
        await serve(
            settings,
            [
                Registration(
                    minting_pb2.DESCRIPTOR.services_by_name["MintingService"].full_name,
                    minting_pb2_grpc.add_MintingServiceServicer_to_server,
                    minting,
                ),
                Registration(
                    chain_pb2.DESCRIPTOR.services_by_name["ChainService"].full_name,
                    chain_pb2_grpc.add_ChainServiceServicer_to_server,
                    chain,
                ),
                Registration(
                    wallets_pb2.DESCRIPTOR.services_by_name["WalletLinkService"].full_name,
                    wallets_pb2_grpc.add_WalletLinkServiceServicer_to_server,
                    links,
                ),
            ],
            probes={"postgres": gateway.database.ping},
        )


async def setup() -> None:
    """Deploys what is not there yet."""
    settings = ChainSettings()
    wallet, collections = minting_wallet(settings)
    async with Chain(settings.network(), settings.ton_trust_level) as chain:
        await set_up(chain, wallet, collections, print)


async def doctor() -> None:
    """Says what is well and what is not; ends with 1 if there is a problem."""
    verdicts = []
    async for finding in examine():
        print(finding, flush=True)
        verdicts.append(finding.verdict)
    if Verdict.PROBLEM in verdicts:
        sys.exit(1)


def command(arguments: list[str]) -> None:
    """What the command line asks for."""
    match arguments:
        case []:
            run(main())
        case ["setup"]:
            run(setup())
        case ["doctor"]:
            run(doctor())
        case ["address"]:
            print(minting_wallet(ChainSettings())[0].address)
        case _:
            raise ConfigurationError("usage: python -m chain_gateway [address | setup | doctor]")


if __name__ == "__main__":
    command(sys.argv[1:])
