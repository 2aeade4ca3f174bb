"""What callers send and no type of ours has room for."""

import pytest
from go2asia.gateway.v1 import wallets_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from chain_gateway import convert
from chain_gateway.errors import ProofInvalid


@pytest.mark.parametrize(
    "sign_time",
    [
        Timestamp(seconds=1_700_000_000_000),
        Timestamp(seconds=-(2**63)),
        Timestamp(seconds=1_700_000_000, nanos=2_000_000_000),
    ],
)
def test_a_time_that_is_none_makes_a_proof_that_does_not_hold(sign_time: Timestamp) -> None:
    request = wallets_pb2.LinkWalletRequest(
        address="0:" + "ab" * 32, proof=wallets_pb2.TonProof(sign_time=sign_time)
    )
    with pytest.raises(ProofInvalid) as caught:
        convert.proof(request)
    assert caught.value.metadata["part"] == "time"
