"""Starts the Chain Gateway: `python -m chain_gateway`, configured by GATEWAY_* variables.

`python -m chain_gateway address` prints the minting wallets' addresses, `… setup` deploys the
wallets and the collections, `… doctor` says what keeps them from minting; none of these needs a
database.
"""

import logging
import sys

import structlog
from go2asia.gateway.v1 import (
    chain_pb2,
    chain_pb2_grpc,
    minting_pb2,
    minting_pb2_grpc,
    wallets_pb2,
    wallets_pb2_grpc,
)

from chain_gateway.composition import Gateway, further_wallets, minting_wallet
from chain_gateway.config import ChainSettings, GatewaySettings
from chain_gateway.convert import Household
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
            Household(
                [wallet.address for wallet in gateway.wallets],
                gateway.collections,
                settings.reserve,
                settings.dry_run,
            ),
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
    minters = further_wallets(settings)
    async with Chain(settings.network(), settings.ton_trust_level) as chain:
        await set_up(chain, wallet, collections, print, minters=minters)


async def doctor() -> None:
    """Says what is well and what is not; ends with 1 if there is a problem."""
    # What it finds is said in its own words.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
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
            settings = ChainSettings()
            for wallet in (minting_wallet(settings)[0], *further_wallets(settings)):
                print(wallet.address)
        case _:
            raise ConfigurationError("usage: python -m chain_gateway [address | setup | doctor]")


if __name__ == "__main__":
    command(sys.argv[1:])
