"""Mints as orders to the Gateway, and its operations as reports; pure."""

from go2asia.gateway.v1 import minting_pb2

from nft_svc.definitions import TokenStandard
from nft_svc.metadata import ItemContent
from nft_svc.mints import Location, Mint, MintKind, MintState, Report

Order = minting_pb2.MintOrder | minting_pb2.UpdateItemContentRequest | minting_pb2.RevokeItemRequest
_ORDERS: dict[MintKind, type[Order]] = {
    MintKind.MINT: minting_pb2.MintOrder,
    MintKind.UPDATE: minting_pb2.UpdateItemContentRequest,
    MintKind.REVOKE: minting_pb2.RevokeItemRequest,
}
_STATES = {
    number: MintState(name.removeprefix("OPERATION_STATE_"))
    for name, number in minting_pb2.OperationState.items()
    if number
}


def order(mint: Mint) -> Order:
    """What the Gateway is asked for; the mint's id is the order's idempotency key.

    The same mint makes the same order for ever, so that the Gateway knows it again.
    """
    content = _content(mint.content)
    item_mint_id = mint.item_mint_id or ""
    match mint.kind:
        case MintKind.MINT:
            soulbound = mint.token_standard is TokenStandard.SBT
            # Unspecified means NFT, and is what orders said before there was a choice.
            unspecified = minting_pb2.ITEM_STANDARD_UNSPECIFIED
            return minting_pb2.MintOrder(
                request_id=mint.mint_id,
                mint_id=mint.mint_id,
                user_id=mint.user_id,
                content=content,
                standard=minting_pb2.ITEM_STANDARD_SBT if soulbound else unspecified,
            )
        case MintKind.UPDATE:
            return minting_pb2.UpdateItemContentRequest(
                request_id=mint.mint_id,
                mint_id=mint.mint_id,
                item_mint_id=item_mint_id,
                content=content,
            )
        case MintKind.REVOKE:
            return minting_pb2.RevokeItemRequest(
                request_id=mint.mint_id, mint_id=mint.mint_id, item_mint_id=item_mint_id
            )


def read_order(kind: MintKind, payload: bytes) -> Order:
    """An order out of the outbox."""
    return _ORDERS[kind].FromString(payload)


def operation_report(operation: minting_pb2.Operation) -> Report:
    """The Gateway's answer to an order, read as a report."""
    return Report(
        mint_id=operation.mint_id,
        operation_id=operation.operation_id,
        version=operation.version,
        state=_STATES[operation.state],
        location=Location(
            operation.collection_address,
            operation.item_index,
            operation.item_address,
            operation.owner_address,
        )
        if operation.item_address
        else None,
        failure_reason=operation.failure_reason,
        retryable=operation.retryable,
    )


def _content(content: ItemContent) -> minting_pb2.Content:
    return minting_pb2.Content(
        name=content.name,
        description=content.description,
        image=content.image,
        attributes=[
            minting_pb2.Attribute(trait_type=trait, value=value)
            for trait, value in content.attributes
        ],
        uri=content.uri,
    )
