"""Whether the metadata of a type's levels keeps its JSON Schema, found out in another process."""

import asyncio
import json
import subprocess
import sys

from nft_svc import schemas
from nft_svc.definitions import NftType
from nft_svc.metadata import invalid_schema, mismatch
from nft_svc.schemas import Fault


async def check_conformity(nft_type: NftType) -> None:
    """Raises `MetadataMismatch` for metadata that breaks the type's schema.

    The error names the level and the JSON path of the field at fault. Raises
    `InvalidMetadataSchema`, with the path, for a schema that is none, refers to something outside
    of itself, or takes too long.
    """
    if nft_type.metadata_schema is None:
        return
    documents = [rule.metadata for rule in nft_type.levels]
    fault = await _fault(json.dumps([nft_type.metadata_schema, documents]))
    if fault is None:
        return
    if fault.document is None:
        raise invalid_schema(fault.path, fault.wrong)
    raise mismatch(nft_type.levels[fault.document].level, fault.path, fault.wrong)


async def _fault(asked: str) -> Fault | None:
    # Not by asyncio: uvloop would fork, and gRPC's handlers of a fork abort the child now and then;
    # `subprocess` uses vfork, which calls none.
    command = [sys.executable, "-m", schemas.__name__]
    ended = await asyncio.to_thread(
        subprocess.run, command, input=asked.encode(), stdout=subprocess.PIPE, check=False
    )
    if ended.returncode == -schemas.OUT_OF_TIME:
        return Fault("$", f"applying it takes more than {schemas.SECONDS:g} s of processor time")
    ended.check_returncode()
    told = json.loads(ended.stdout)
    return None if told is None else Fault(**told)
