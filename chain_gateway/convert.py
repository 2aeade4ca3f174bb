"""Protobuf ⇄ domain; pure."""

from datetime import UTC

from go2asia.gateway.v1 import chain_pb2, minting_pb2, wallets_pb2
from go2asia.nft.v1 import callbacks_pb2, nft_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from chain_gateway.items import MINT_COST
from chain_gateway.operations import Content, Operation, Order, Standing, State
from chain_gateway.proof import Proof
from chain_gateway.reading import Item
from chain_gateway.store.links import Link
from chain_gateway.store.orders import Status


def order(message: minting_pb2.MintOrder) -> Order:
    """A mint that a caller asks for."""
    content = Content(
        name=message.content.name,
        description=message.content.description,
        image=message.content.image,
        attributes=tuple((a.trait_type, a.value) for a in message.content.attributes),
    )
    return Order(message.request_id, message.mint_id.lower(), message.user_id, content)


def state(value: minting_pb2.OperationState.ValueType) -> State | None:
    """A state to filter by; None for unspecified."""
    return State(value) if value else None


def operation(stored: Operation) -> minting_pb2.Operation:
    """An operation as callers see it."""
    standing = stored.standing
    message = minting_pb2.Operation(
        operation_id=standing.operation_id,
        request_id=stored.order.request_id,
        mint_id=stored.order.mint_id,
        user_id=stored.order.user_id,
        state=minting_pb2.OperationState.ValueType(standing.state),
        version=standing.version,
        content=_content(stored.order.content),
        query_id=stored.query_id,
        failure_reason=standing.failure_reason,
        retryable=standing.retryable,
    )
    if standing.placement is not None:
        message.collection_address = standing.placement.collection
        message.item_index = standing.placement.index
        message.item_address = standing.placement.address
        message.owner_address = standing.placement.owner
    message.create_time.FromDatetime(stored.create_time)
    message.update_time.FromDatetime(stored.update_time)
    return message


def report(standing: Standing) -> callbacks_pb2.MintReport:
    """An operation as NFT is told about it."""
    message = callbacks_pb2.MintReport(
        mint_id=standing.mint_id,
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
        message.location.owner_address = standing.placement.owner
    return message


def proof(request: wallets_pb2.LinkWalletRequest) -> Proof:
    """What the wallet signed, and for which address."""
    workchain, _, account = request.address.partition(":")
    return Proof(
        workchain=int(workchain),
        account=bytes.fromhex(account),
        sign_time=request.proof.sign_time.ToDatetime(tzinfo=UTC),
        domain=request.proof.domain,
        payload=request.proof.payload,
        signature=request.proof.signature,
    )


def wallet(link: Link) -> wallets_pb2.LinkedWallet:
    """A user's wallet."""
    message = wallets_pb2.LinkedWallet(user_id=link.user_id, address=link.address)
    message.link_time.FromDatetime(link.link_time)
    return message


def item(found: Item) -> chain_pb2.NftItem:
    """An item as the chain has it."""
    return chain_pb2.NftItem(
        item_address=found.address,
        initialised=found.initialised,
        item_index=found.index,
        collection_address=found.collection,
        owner_address=found.owner,
        content=found.content,
        masterchain_seqno=found.masterchain_seqno,
    )


def status(found: Status, collection: str) -> chain_pb2.GetGatewayStatusResponse:
    """How the Gateway fares."""
    reason = found.paused_reason if found.led else "NO_SENDER"
    message = chain_pb2.GetGatewayStatusResponse(
        wallet_address=found.wallet_address,
        wallet_balance_nanoton=found.balance,
        gas_runway_mints=found.balance // MINT_COST,
        collection_address=collection,
        masterchain_seqno=found.masterchain_seqno,
        operations={
            f"OPERATION_STATE_{state.name}": count for state, count in found.operations.items()
        },
        callbacks_waiting=found.callbacks_waiting,
        paused=bool(reason),
        paused_reason=reason,
    )
    if found.masterchain_time is not None:
        message.masterchain_time.CopyFrom(_timestamp(found.masterchain_time.timestamp()))
    return message


def _timestamp(seconds: float) -> Timestamp:
    return Timestamp(seconds=int(seconds))


def _content(content: Content) -> minting_pb2.Content:
    return minting_pb2.Content(
        name=content.name,
        description=content.description,
        image=content.image,
        attributes=[
            minting_pb2.Attribute(trait_type=kind, value=value)
            for kind, value in content.attributes
        ],
    )
