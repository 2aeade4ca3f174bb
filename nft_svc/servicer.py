"""The gRPC edge: convert, call, convert."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar

import grpc
from go2asia.mesh.v1.item_error_pb2 import ItemError
from go2asia.nft.v1 import (
    callbacks_pb2,
    callbacks_pb2_grpc,
    catalog_pb2,
    catalog_pb2_grpc,
    nft_pb2,
    nft_pb2_grpc,
    rewards_pb2,
    rewards_pb2_grpc,
)
from google.protobuf.message import Message

from mesh import validation
from mesh.db import Database
from mesh.idempotency import Key, fingerprint
from mesh.identity import caller
from mesh.items import Batch
from mesh.pagination import next_token, open_page
from mesh.telemetry import current_request_id, traceparent
from nft_svc import convert
from nft_svc.audit import Origin
from nft_svc.catalog import Catalog
from nft_svc.errors import MintNotFound, NftNotFound
from nft_svc.feed import Feed
from nft_svc.mint_requests import MintRequests
from nft_svc.reports import News, Reports
from nft_svc.reverts import Reverts
from nft_svc.rewards import RewardRequest, Rewards
from nft_svc.store import reads

Context = grpc.aio.ServicerContext[Any, Any]
Given = TypeVar("Given", rewards_pb2.ApplyRewardRequest, rewards_pb2.GrantNftRequest)
GIVING = "ApplyReward"
"""The space of request ids that all methods share which give something."""


def _key(method: str, request: Message, request_id: str) -> Key:
    return Key(_scope(method), request_id, fingerprint(request))


def _scope(method: str) -> str:
    return f"{caller()}:{method}"


def _origin(request_id: str | None) -> Origin:
    return Origin(str(caller()), request_id, traceparent())


class RewardServicer(rewards_pb2_grpc.RewardServiceServicer):
    """Where Connect sends rewards; a request id means the same in all methods that give."""

    def __init__(self, rewards: Rewards, reverts: Reverts) -> None:
        self._rewards = rewards
        self._reverts = reverts

    async def ApplyReward(
        self, request: rewards_pb2.ApplyRewardRequest, context: Context
    ) -> rewards_pb2.ApplyRewardResponse:
        outcome = await self._rewards.apply(self._request(request))
        return rewards_pb2.ApplyRewardResponse(outcome=outcome)

    async def BatchApplyRewards(
        self, request: rewards_pb2.BatchApplyRewardsRequest, context: Context
    ) -> rewards_pb2.BatchApplyRewardsResponse:
        results = await self._apply_each("rewards", request.rewards, self._request)
        return rewards_pb2.BatchApplyRewardsResponse(results=results)

    async def GrantNft(
        self, request: rewards_pb2.GrantNftRequest, context: Context
    ) -> rewards_pb2.GrantNftResponse:
        outcome = await self._rewards.apply(self._grant(request))
        return rewards_pb2.GrantNftResponse(outcome=outcome)

    async def BatchGrantNfts(
        self, request: rewards_pb2.BatchGrantNftsRequest, context: Context
    ) -> rewards_pb2.BatchGrantNftsResponse:
        results = await self._apply_each("grants", request.grants, self._grant)
        return rewards_pb2.BatchGrantNftsResponse(results=results)

    async def RevertReward(
        self, request: rewards_pb2.RevertRewardRequest, context: Context
    ) -> rewards_pb2.RevertRewardResponse:
        outcome = await self._reverts.revert(
            _key("RevertReward", request, request.request_id),
            _scope(GIVING),
            request.original_request_id,
            request.reference,
            _origin(request.request_id),
        )
        return rewards_pb2.RevertRewardResponse(outcome=outcome)

    def _request(self, request: rewards_pb2.ApplyRewardRequest) -> RewardRequest:
        key = _key(GIVING, request, request.request_id)
        return RewardRequest(key, convert.reward(request, _origin(request.request_id)))

    def _grant(self, request: rewards_pb2.GrantNftRequest) -> RewardRequest:
        key = _key(GIVING, request, request.request_id)
        return RewardRequest(key, convert.grant(request, _origin(request.request_id)))

    async def _apply_each(
        self, field: str, given: Sequence[Given], read: Callable[[Given], RewardRequest]
    ) -> list[rewards_pb2.ApplyRewardResult]:
        def prepare(one: Given) -> RewardRequest:
            validation.check(one)
            return read(one)

        answers = await Batch(field, given, prepare).answers(self._rewards.apply_many)
        return [
            rewards_pb2.ApplyRewardResult(error=answer)
            if isinstance(answer, ItemError)
            else rewards_pb2.ApplyRewardResult(outcome=answer)
            for answer in answers
        ]


class CatalogServicer(catalog_pb2_grpc.NftCatalogServiceServicer):
    """Badge types."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def CreateNftType(
        self, request: catalog_pb2.CreateNftTypeRequest, context: Context
    ) -> catalog_pb2.CreateNftTypeResponse:
        created = await self._catalog.create(
            _key("CreateNftType", request, request.request_id),
            convert.nft_type(request.nft_type),
            _origin(request.request_id),
        )
        return catalog_pb2.CreateNftTypeResponse(nft_type=created)

    async def UpdateNftType(
        self, request: catalog_pb2.UpdateNftTypeRequest, context: Context
    ) -> catalog_pb2.UpdateNftTypeResponse:
        updated = await self._catalog.update(
            _key("UpdateNftType", request, request.request_id),
            convert.nft_type(request.nft_type),
            request.nft_type.etag,
            _origin(request.request_id),
        )
        return catalog_pb2.UpdateNftTypeResponse(nft_type=updated)

    async def ArchiveNftType(
        self, request: catalog_pb2.ArchiveNftTypeRequest, context: Context
    ) -> catalog_pb2.ArchiveNftTypeResponse:
        archived = await self._catalog.archive(
            _key("ArchiveNftType", request, request.request_id),
            request.code,
            request.etag,
            _origin(request.request_id),
        )
        return catalog_pb2.ArchiveNftTypeResponse(nft_type=archived)

    async def PreviewNftType(
        self, request: catalog_pb2.PreviewNftTypeRequest, context: Context
    ) -> catalog_pb2.PreviewNftTypeResponse:
        page = open_page(request)
        after = page.after_text() or ""
        changed = convert.nft_type(request.nft_type)
        found = await self._catalog.preview(changed, request.nft_type.etag, after, page.size)
        return catalog_pb2.PreviewNftTypeResponse(
            shifts=[
                catalog_pb2.LevelShift(
                    user_id=shift.user_id,
                    nft_id=shift.nft_id or "",
                    level=shift.level,
                    level_due=shift.due,
                )
                for shift in found.shifts
            ],
            examined=found.examined,
            next_page_token=next_token(request, (found.last,)) if found.last else "",
        )

    async def GetNftType(
        self, request: catalog_pb2.GetNftTypeRequest, context: Context
    ) -> catalog_pb2.GetNftTypeResponse:
        found = await self._catalog.get(request.code)
        return catalog_pb2.GetNftTypeResponse(nft_type=convert.nft_type_message(found))

    async def ListNftTypeVersions(
        self, request: catalog_pb2.ListNftTypeVersionsRequest, context: Context
    ) -> catalog_pb2.ListNftTypeVersionsResponse:
        page = open_page(request)
        found = await self._catalog.versions(request.code, page.after_number(), page.limit)
        versions, token = page.fill(found, convert.nft_type_version, lambda row: (row["entry_id"],))
        return catalog_pb2.ListNftTypeVersionsResponse(versions=versions, next_page_token=token)

    async def ListNftTypes(
        self, request: catalog_pb2.ListNftTypesRequest, context: Context
    ) -> catalog_pb2.ListNftTypesResponse:
        page = open_page(request)
        found = await self._catalog.page(page.after_text(), page.limit)
        types, token = page.fill(found, convert.nft_type_message, lambda one: (one.code,))
        return catalog_pb2.ListNftTypesResponse(nft_types=types, next_page_token=token)


class CallbackServicer(callbacks_pb2_grpc.MintCallbackServiceServicer):
    """Where the Gateway reports."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    async def ReportMintStatus(
        self, request: callbacks_pb2.ReportMintStatusRequest, context: Context
    ) -> callbacks_pb2.ReportMintStatusResponse:
        origin = _origin(current_request_id())
        news = [News(convert.report(report), origin) for report in request.reports]
        return callbacks_pb2.ReportMintStatusResponse(changed=await self._reports.apply(news))


class NftServicer(nft_pb2_grpc.NftServiceServicer):
    """What people read, stream, and ask of their mints."""

    def __init__(self, database: Database, feed: Feed, requests: MintRequests) -> None:
        self._database = database
        self._feed = feed
        self._requests = requests

    async def RequestMint(
        self, request: nft_pb2.RequestMintRequest, context: Context
    ) -> nft_pb2.RequestMintResponse:
        mint = await self._requests.request(
            _key("RequestMint", request, request.request_id),
            request.user_id,
            request.nft_id.lower(),
            _origin(request.request_id),
        )
        return nft_pb2.RequestMintResponse(mint=mint)

    async def RetryMint(
        self, request: nft_pb2.RetryMintRequest, context: Context
    ) -> nft_pb2.RetryMintResponse:
        mint = await self._requests.retry(
            _key("RetryMint", request, request.request_id),
            request.user_id,
            request.mint_id.lower(),
            _origin(request.request_id),
        )
        return nft_pb2.RetryMintResponse(mint=mint)

    async def CancelMint(
        self, request: nft_pb2.CancelMintRequest, context: Context
    ) -> nft_pb2.CancelMintResponse:
        mint = await self._requests.cancel(
            _key("CancelMint", request, request.request_id),
            request.user_id,
            request.mint_id.lower(),
            _origin(request.request_id),
        )
        return nft_pb2.CancelMintResponse(mint=mint)

    async def GetNft(
        self, request: nft_pb2.GetNftRequest, context: Context
    ) -> nft_pb2.GetNftResponse:
        async with self._database.transaction(read_only=True) as connection:
            found = await reads.nft(connection, request.nft_id)
        if found is None:
            raise NftNotFound(field="nft_id", nft_id=request.nft_id)
        return nft_pb2.GetNftResponse(nft=convert.nft(found))

    async def ListNfts(
        self, request: nft_pb2.ListNftsRequest, context: Context
    ) -> nft_pb2.ListNftsResponse:
        page = open_page(request)
        async with self._database.transaction(read_only=True) as connection:
            found = await reads.nfts(
                connection, request.user_id, request.nft_type, page.after_id(), page.limit
            )
        nfts, token = page.fill(found, convert.nft, lambda row: (row["nft_id"],))
        return nft_pb2.ListNftsResponse(nfts=nfts, next_page_token=token)

    async def GetProgress(
        self, request: nft_pb2.GetProgressRequest, context: Context
    ) -> nft_pb2.GetProgressResponse:
        async with self._database.transaction(read_only=True) as connection:
            found = await reads.progress(connection, request.user_id, request.nft_type)
        return nft_pb2.GetProgressResponse(
            progress=convert.progress(request.user_id, request.nft_type, found)
        )

    async def ListProgress(
        self, request: nft_pb2.ListProgressRequest, context: Context
    ) -> nft_pb2.ListProgressResponse:
        page = open_page(request)
        async with self._database.transaction(read_only=True) as connection:
            found = await reads.progress_page(
                connection,
                request.user_id,
                request.nft_type,
                convert.progress_seen(page),
                page.limit,
            )
        progress, token = page.fill(
            found, convert.progress_row, lambda row: (row["user_id"], row["nft_type"])
        )
        return nft_pb2.ListProgressResponse(progress=progress, next_page_token=token)

    async def ListAuditLog(
        self, request: nft_pb2.ListAuditLogRequest, context: Context
    ) -> nft_pb2.ListAuditLogResponse:
        page = open_page(request)
        before = page.after_number()
        async with self._database.transaction(read_only=True) as connection:
            found = await reads.audit_log(
                connection, request.user_id, request.nft_id, request.action, before, page.limit
            )
        entries, token = page.fill(found, convert.audit_entry, lambda row: (row["entry_id"],))
        return nft_pb2.ListAuditLogResponse(entries=entries, next_page_token=token)

    async def GetMint(
        self, request: nft_pb2.GetMintRequest, context: Context
    ) -> nft_pb2.GetMintResponse:
        async with self._database.transaction(read_only=True) as connection:
            found = await reads.mint(connection, request.mint_id)
        if found is None:
            raise MintNotFound(field="mint_id", mint_id=request.mint_id)
        return nft_pb2.GetMintResponse(mint=convert.mint(found))

    async def ListMints(
        self, request: nft_pb2.ListMintsRequest, context: Context
    ) -> nft_pb2.ListMintsResponse:
        page = open_page(request)
        state = convert.mint_state(request.state)
        async with self._database.transaction(read_only=True) as connection:
            found = await reads.mints(
                connection, request.user_id, state, page.after_id(), page.limit
            )
        mints, token = page.fill(found, convert.mint, lambda mint: (mint.mint_id,))
        return nft_pb2.ListMintsResponse(mints=mints, next_page_token=token)

    async def WatchMintStatus(
        self, request: nft_pb2.WatchMintStatusRequest, context: Context
    ) -> AsyncIterator[nft_pb2.WatchMintStatusResponse]:
        async for message in self._feed.watch(convert.target(request), request.resume_token):
            yield message
