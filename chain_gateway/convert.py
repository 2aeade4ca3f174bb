"""Protobuf ⇄ domain; pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC

from go2asia.gateway.v1 import chain_pb2, minting_pb2, wallets_pb2
from go2asia.nft.v1 import callbacks_pb2, nft_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from chain_gateway.burning import Burn
from chain_gateway.errors import ProofInvalid
from chain_gateway.items import Collections, runway
from chain_gateway.operations import (
    Content,
    Mint,
    Operation,
    Order,
    Revocation,
    Standard,
    Standing,
    State,
    Transfer,
    Update,
)
from chain_gateway.proof import Proof
from chain_gateway.reading import Item
from chain_gateway.store.links import Link
from chain_gateway.store.orders import Status


@dataclass(frozen=True, slots=True)
class Household:
    """What the Gateway mints with: its wallets, the collections' owner first.

    `reserve`, in nanoton, is what each wallet keeps.
    """

    wallets: Sequence[str]
    collections: Collections
    reserve: int
    dry_run: bool


def mint(message: minting_pb2.MintOrder) -> Order:
    """A mint that a caller asks for."""
    standard = item_standard(message.standard)
    task = Mint(_content(message.content), standard)
    return Order(message.request_id, message.mint_id.lower(), message.user_id, task)


def transfer(message: minting_pb2.TransferOrder) -> Order:
    """A transfer that a caller asks for."""
    task = Transfer(message.amount_nanoton, message.comment)
    return Order(message.request_id, None, message.user_id, task)


def update(message: minting_pb2.UpdateItemContentRequest) -> Order:
    """A change of an item's content; whose it is, its mint tells."""
    task = Update(message.item_mint_id.lower(), _content(message.content))
    return Order(message.request_id, message.mint_id.lower(), "", task)


def revocation(message: minting_pb2.RevokeItemRequest) -> Order:
    """A revocation of an item; whose it is, its mint tells."""
    task = Revocation(message.item_mint_id.lower())
    return Order(message.request_id, message.mint_id.lower(), "", task)


def state(value: minting_pb2.OperationState.ValueType) -> State | None:
    """A state to filter by; None for unspecified."""
    return State(value) if value else None


def operation(stored: Operation) -> minting_pb2.Operation:
    """An operation as callers see it."""
    order, standing = stored.order, stored.standing
    message = minting_pb2.Operation(
        operation_id=standing.operation_id,
        request_id=order.request_id,
        kind=minting_pb2.OperationKind.ValueType(standing.kind),
        mint_id=order.mint_id or "",
        user_id=order.user_id,
        state=minting_pb2.OperationState.ValueType(standing.state),
        version=standing.version,
        query_id=stored.query_id,
        owner_address=standing.owner or "",
        failure_reason=standing.failure_reason,
        retryable=standing.retryable,
        cost_nanoton=stored.cost,
        wallet_address=stored.wallet or "",
    )
    match order.task:
        case Mint(content, standard):
            message.content.CopyFrom(_content_message(content))
            message.standard = minting_pb2.ItemStandard.ValueType(standard)
        case Transfer(amount):
            message.amount_nanoton = amount
        case Update(item_mint_id, content):
            message.item_mint_id = item_mint_id
            message.content.CopyFrom(_content_message(content))
        case Revocation(item_mint_id):
            message.item_mint_id = item_mint_id
    if standing.placement is not None:
        message.collection_address = standing.placement.collection
        message.item_index = standing.placement.index
        message.item_address = standing.placement.address
    message.create_time.FromDatetime(stored.create_time)
    message.update_time.FromDatetime(stored.update_time)
    return message


def report(standing: Standing) -> callbacks_pb2.MintReport:
    """An operation as NFT is told about it."""
    message = callbacks_pb2.MintReport(
        mint_id=standing.mint_id or "",
        operation_id=standing.operation_id,
        version=standing.version,
        state=nft_pb2.MintState.Value(f"MINT_STATE_{standing.state.name}"),
        failure_reason=standing.failure_reason,
        retryable=standing.retryable,
    )
    if standing.placement is not None:
        message.location.collection_address = standing.placement.collection
        message.location.item_index = standing.placement.index
        message.location.item_address = standing.placement.address
        message.location.owner_address = standing.owner or ""
    return message


def proof(request: wallets_pb2.LinkWalletRequest) -> Proof:
    """What the wallet signed, and for which address; raises `ProofInvalid` for no time at all."""
    workchain, _, account = request.address.partition(":")
    try:
        sign_time = request.proof.sign_time.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ProofInvalid("time") from None
    return Proof(
        workchain=int(workchain),
        account=bytes.fromhex(account),
        sign_time=sign_time,
        domain=request.proof.domain,
        payload=request.proof.payload,
        signature=request.proof.signature,
    )


def wallet(link: Link) -> wallets_pb2.LinkedWallet:
    """A user's wallet."""
    message = wallets_pb2.LinkedWallet(user_id=link.user_id, address=link.address)
    message.link_time.FromDatetime(link.link_time)
    return message


def item_standard(value: minting_pb2.ItemStandard.ValueType) -> Standard:
    """The standard that is meant; unspecified means NFT."""
    return Standard(value) if value else Standard.NFT


def item(found: Item) -> chain_pb2.NftItem:
    """An item as the chain has it."""
    message = chain_pb2.NftItem(
        item_address=found.address,
        initialised=found.initialised,
        item_index=found.index,
        collection_address=found.collection,
        owner_address=found.owner,
        content=found.content,
        masterchain_seqno=found.masterchain_seqno,
        standard=minting_pb2.ItemStandard.ValueType(found.standard),
    )
    if found.revoked_at:
        message.revoke_time.CopyFrom(_timestamp(found.revoked_at))
    return message


def burn(found: Burn | None) -> chain_pb2.VerifyBurnResponse:
    """The end of an item, or that it has not come."""
    if found is None:
        return chain_pb2.VerifyBurnResponse(burnt=False)
    return chain_pb2.VerifyBurnResponse(
        burnt=True,
        burn_time=_timestamp(found.time),
        transaction_lt=found.lt,
        transaction_hash=found.hash,
        burner_address=found.burner,
    )


def status(found: Status, household: Household) -> chain_pb2.GetGatewayStatusResponse:
    """How the Gateway fares; the first wallet stands for all where there is room for one."""
    first, reserve = found.wallets[0], household.reserve
    message = chain_pb2.GetGatewayStatusResponse(
        wallet_address=first.address,
        wallet_balance_nanoton=first.balance,
        gas_runway_mints=runway(first.balance, reserve),
        collection_address=household.collections[Standard.NFT].address,
        sbt_collection_address=household.collections[Standard.SBT].address,
        masterchain_seqno=first.masterchain_seqno,
        operations={
            f"OPERATION_STATE_{state.name}": count for state, count in found.operations.items()
        },
        callbacks_waiting=found.callbacks_waiting,
        paused=bool(first.paused_reason),
        paused_reason=first.paused_reason,
        wallets=[
            chain_pb2.WalletStatus(
                address=wallet.address,
                balance_nanoton=wallet.balance,
                gas_runway_mints=runway(wallet.balance, reserve),
                paused_reason=wallet.paused_reason,
            )
            for wallet in found.wallets
        ],
        dry_run=household.dry_run,
    )
    if first.masterchain_time is not None:
        message.masterchain_time.CopyFrom(_timestamp(first.masterchain_time.timestamp()))
    return message


def _timestamp(seconds: float) -> Timestamp:
    return Timestamp(seconds=int(seconds))


def _content(message: minting_pb2.Content) -> Content:
    return Content(
        name=message.name,
        description=message.description,
        image=message.image,
        attributes=tuple((a.trait_type, a.value) for a in message.attributes),
        uri=message.uri,
    )


def _content_message(content: Content) -> minting_pb2.Content:
    return minting_pb2.Content(
        name=content.name,
        description=content.description,
        image=content.image,
        attributes=[
            minting_pb2.Attribute(trait_type=kind, value=value)
            for kind, value in content.attributes
        ],
        uri=content.uri,
    )
