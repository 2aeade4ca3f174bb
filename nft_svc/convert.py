"""Proto ⇄ domain; pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from go2asia.nft.v1 import callbacks_pb2, catalog_pb2, nft_pb2, rewards_pb2
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from mesh.errors import InvalidArgument, PageTokenInvalid
from mesh.pagination import Page
from mesh.wire import FILL_BYTES
from nft_svc.accrual import Grant, RevertOutcome, Reward, RewardOutcome
from nft_svc.audit import Origin
from nft_svc.definitions import LevelRule, NftType, OnchainPolicy, TokenStandard, UpgradePolicy
from nft_svc.mints import Change, Location, Mint, MintState, Report
from nft_svc.progress import Progress
from nft_svc.resume import Target, TargetKind

_MINT_STATES = {
    number: MintState(name.removeprefix("MINT_STATE_"))
    for name, number in nft_pb2.MintState.items()
    if number
}
_MINT_STATE_NUMBERS = {state: number for number, state in _MINT_STATES.items()}


def reward(message: rewards_pb2.ApplyRewardRequest, origin: Origin) -> Reward:
    """The reward that a request asks for."""
    return Reward(
        user_id=message.user_id,
        nft_type=message.nft_type,
        counter=message.counter,
        increment=message.increment,
        reference=message.reference,
        origin=origin,
    )


def grant(message: rewards_pb2.GrantNftRequest, origin: Origin) -> Grant:
    """The badge that a request gives."""
    return Grant(message.user_id, message.nft_type, message.reference, origin, message.mint_onchain)


def reward_given(
    outcome: rewards_pb2.RewardOutcome, reference: str, origin: Origin
) -> Reward | Grant:
    """What was applied with that outcome, to be taken back by `origin` with a reference."""
    user_id, nft_type = outcome.user_id, outcome.nft_type
    if not outcome.counter:
        return Grant(user_id, nft_type, reference, origin)
    return Reward(user_id, nft_type, outcome.counter, outcome.increment, reference, origin)


def reward_outcome(outcome: RewardOutcome, given: Reward | Grant) -> rewards_pb2.RewardOutcome:
    """A reward's outcome on the wire; it tells all that taking the reward back needs to know."""
    return rewards_pb2.RewardOutcome(
        counter_value=outcome.counter_value,
        nft_id=outcome.nft_id or "",
        level=outcome.level,
        level_raised=outcome.level_raised,
        mint_id=outcome.mint_id or "",
        user_id=given.user_id,
        nft_type=given.nft_type,
        counter=given.counter if isinstance(given, Reward) else "",
        increment=given.increment if isinstance(given, Reward) else 0,
    )


def revert_outcome(outcome: RevertOutcome) -> rewards_pb2.RevertOutcome:
    """What taking a reward back changed, on the wire."""
    return rewards_pb2.RevertOutcome(
        counter_value=outcome.counter_value,
        nft_id=outcome.nft_id or "",
        level=outcome.level,
        level_lowered=outcome.level_lowered,
    )


def nft_type(message: catalog_pb2.NftType) -> NftType:
    """A type as its author wrote it: version 1, active; raises `InvalidArgument`."""
    schema = None
    if message.HasField("metadata_schema"):
        schema = struct_dict(message.metadata_schema, "nft_type.metadata_schema")
    policy = message.onchain_policy or catalog_pb2.ONCHAIN_POLICY_NONE
    standard = message.token_standard or catalog_pb2.TOKEN_STANDARD_NFT
    upgrade = message.upgrade_policy or catalog_pb2.UPGRADE_POLICY_UPDATE_CONTENT
    return NftType(
        code=message.code,
        display_name=message.display_name,
        description=message.description,
        counters=tuple(message.counters),
        metadata_schema=schema,
        image=message.image,
        onchain_policy=OnchainPolicy(
            catalog_pb2.OnchainPolicy.Name(policy).removeprefix("ONCHAIN_POLICY_")
        ),
        token_standard=TokenStandard(
            catalog_pb2.TokenStandard.Name(standard).removeprefix("TOKEN_STANDARD_")
        ),
        levels=tuple(_level_rule(*numbered) for numbered in enumerate(message.levels)),
        item_uri=message.item_uri,
        attributes=tuple((each.trait_type, each.value) for each in message.attributes),
        upgrade_policy=UpgradePolicy(
            catalog_pb2.UpgradePolicy.Name(upgrade).removeprefix("UPGRADE_POLICY_")
        ),
    )


def nft_type_message(known: NftType) -> catalog_pb2.NftType:
    """A type on the wire."""
    return catalog_pb2.NftType(
        code=known.code,
        etag=known.etag,
        version=known.version,
        state=catalog_pb2.NftType.State.Value(f"STATE_{known.state}"),
        display_name=known.display_name,
        description=known.description,
        counters=known.counters,
        metadata_schema=None if known.metadata_schema is None else struct(known.metadata_schema),
        image=known.image,
        onchain_policy=catalog_pb2.OnchainPolicy.Value(f"ONCHAIN_POLICY_{known.onchain_policy}"),
        token_standard=catalog_pb2.TokenStandard.Value(f"TOKEN_STANDARD_{known.token_standard}"),
        levels=[
            catalog_pb2.LevelRule(
                level=rule.level,
                thresholds=rule.thresholds,
                metadata=struct(rule.metadata),
                auto_mint_onchain=rule.auto_mint_onchain,
            )
            for rule in known.levels
        ],
        item_uri=known.item_uri,
        attributes=[
            catalog_pb2.AttributeTemplate(trait_type=trait, value=value)
            for trait, value in known.attributes
        ],
        upgrade_policy=catalog_pb2.UpgradePolicy.Value(f"UPGRADE_POLICY_{known.upgrade_policy}"),
    )


def nft_type_version(row: Mapping[Any, Any]) -> catalog_pb2.NftTypeVersion:
    """A version of a type, as `store.catalog` returns it, on the wire."""
    message = catalog_pb2.NftTypeVersion(author=row["actor"])
    json_format.ParseDict(row["after"], message.nft_type)
    message.create_time.FromDatetime(row["time"])
    return message


def progress(user_id: str, code: str, known: Progress) -> nft_pb2.Progress:
    """Progress on the wire."""
    return nft_pb2.Progress(
        user_id=user_id,
        nft_type=code,
        counters=known.counters,
        level=known.level,
        grants=known.grants,
    )


def progress_row(row: Mapping[Any, Any]) -> nft_pb2.Progress:
    """Progress, as `store.reads` returns it, on the wire."""
    known = Progress(row["counters"], row["level"], row["grants"])
    return progress(row["user_id"], row["nft_type"], known)


def audit_entry(row: Mapping[Any, Any]) -> nft_pb2.AuditEntry:
    """A line of the audit log, as `store.reads` returns it, on the wire."""
    message = nft_pb2.AuditEntry(
        entry_id=row["entry_id"],
        actor=row["actor"],
        action=row["action"],
        subject=row["subject"],
        user_id=row["user_id"] or "",
        nft_id=row["nft_id"] or "",
        before=None if row["before"] is None else struct(row["before"]),
        after=None if row["after"] is None else struct(row["after"]),
        reference=row["reference"],
        request_id=row["request_id"] or "",
        trace_id=row["trace_id"] or "",
    )
    message.time.FromDatetime(row["time"])
    return message


def nft(row: Mapping[Any, Any]) -> nft_pb2.Nft:
    """An instance, as `store.reads` returns it, on the wire."""
    message = nft_pb2.Nft(
        nft_id=row["nft_id"],
        user_id=row["user_id"],
        nft_type=row["nft_type"],
        level=row["level"],
        metadata=struct(row["metadata"]),
        mint_id=row["mint_id"] or "",
    )
    if row["mint_state"]:
        message.mint_state = _MINT_STATE_NUMBERS[MintState(row["mint_state"])]
    message.create_time.FromDatetime(row["create_time"])
    message.update_time.FromDatetime(row["update_time"])
    return message


def mint(known: Mint) -> nft_pb2.Mint:
    """A mint on the wire."""
    message = nft_pb2.Mint(
        mint_id=known.mint_id,
        nft_id=known.nft_id,
        user_id=known.user_id,
        nft_type=known.nft_type,
        state=_MINT_STATE_NUMBERS[known.state],
        version=known.version,
        content=nft_pb2.ItemContent(
            name=known.content.name,
            description=known.content.description,
            image=known.content.image,
            attributes=[
                nft_pb2.ItemAttribute(trait_type=trait, value=value)
                for trait, value in known.content.attributes
            ],
            uri=known.content.uri,
        ),
        operation_id=known.operation_id or "",
        failure_reason=known.failure_reason,
        retryable=known.retryable,
        retry_of=known.retry_of or "",
        present_owner_address=known.present_owner_address or "",
        kind=nft_pb2.MintKind.Value(f"MINT_KIND_{known.kind}"),
        item_mint_id=known.item_mint_id or "",
        token_standard=catalog_pb2.TokenStandard.Value(f"TOKEN_STANDARD_{known.token_standard}"),
        level=known.level,
    )
    if known.location is not None:
        message.location.collection_address = known.location.collection_address
        message.location.item_index = known.location.item_index
        message.location.item_address = known.location.item_address
        message.location.owner_address = known.location.owner_address
    message.create_time.FromDatetime(known.create_time)
    message.update_time.FromDatetime(known.update_time)
    return message


def snapshot(known: Sequence[Mint]) -> nft_pb2.MintSnapshot:
    """Mints by id, the newest of them if all together would not fit a message."""
    fitting: list[nft_pb2.Mint] = []
    left = FILL_BYTES
    for one in map(mint, reversed(known)):
        left -= one.ByteSize()
        if left < 0:
            break
        fitting.append(one)
    return nft_pb2.MintSnapshot(mints=reversed(fitting))


def mint_state(number: nft_pb2.MintState.ValueType) -> MintState | None:
    """A state named in a request; None if unspecified."""
    return _MINT_STATES.get(number)


def change(known: Change) -> nft_pb2.MintChange:
    """A change of a mint on the wire and in the feed."""
    return nft_pb2.MintChange(
        mint=mint(known.mint),
        previous_state=_MINT_STATE_NUMBERS[known.previous]
        if known.previous
        else nft_pb2.MINT_STATE_UNSPECIFIED,
        rollback=known.rollback,
    )


def report(message: callbacks_pb2.MintReport) -> Report:
    """A report of the Gateway."""
    place = message.location
    return Report(
        mint_id=message.mint_id.lower(),
        operation_id=message.operation_id.lower(),
        version=message.version,
        state=_MINT_STATES[message.state],
        location=Location(
            place.collection_address, place.item_index, place.item_address, place.owner_address
        )
        if message.HasField("location")
        else None,
        failure_reason=message.failure_reason,
        retryable=message.retryable,
    )


def target(message: nft_pb2.WatchMintStatusRequest) -> Target:
    """What a stream watches."""
    match message.WhichOneof("target"):
        case "mint_id":
            return Target(TargetKind.MINT, message.mint_id.lower())
        case "nft_id":
            return Target(TargetKind.NFT, message.nft_id.lower())
        case _:
            return Target(TargetKind.USER, message.user_id)


def progress_seen(page: Page) -> tuple[str, str] | None:
    """The user and type of the last progress that earlier pages showed.

    Raises `PageTokenInvalid`.
    """
    match page.after:
        case None:
            return None
        case (str(user_id), str(nft_type)):
            return user_id, nft_type
    raise PageTokenInvalid(field="page_token")


def struct(values: Mapping[str, Any]) -> Struct:
    """A JSON object as a Struct."""
    message = Struct()
    message.update(values)
    return message


def struct_dict(message: Struct, field: str) -> dict[str, Any]:
    """A Struct as a JSON object; whole numbers, which a Struct holds as doubles, become ints.

    Raises `InvalidArgument`, naming the `field`, for a number that JSON has no word for.
    """
    try:
        plain: dict[str, Any] = _whole(json_format.MessageToDict(message))
    except ValueError:
        wrong = "JSON knows no infinity, and no NaN; write a number, or leave it out."
        raise InvalidArgument(wrong, field=field) from None
    return plain


def _whole(value: Any) -> Any:
    match value:
        case dict():
            return {key: _whole(inner) for key, inner in value.items()}
        case list():
            return [_whole(inner) for inner in value]
        case float() if value.is_integer() and abs(value) < 2**53:
            return int(value)
        case _:
            return value


def _level_rule(number: int, message: catalog_pb2.LevelRule) -> LevelRule:
    return LevelRule(
        level=message.level,
        thresholds=dict(message.thresholds),
        metadata=struct_dict(message.metadata, f"nft_type.levels[{number}].metadata"),
        auto_mint_onchain=message.auto_mint_onchain,
    )
