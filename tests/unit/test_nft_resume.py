"""Resume tokens open only where they were issued."""

import pytest

from nft_svc.errors import ResumeTokenInvalid
from nft_svc.resume import ResumeTokens, Target, TargetKind

ADA = Target(TargetKind.USER, "ada")
TOKENS = ResumeTokens(b"epoch one")
TOKEN = TOKENS.issue(ADA, 4_711)


def test_a_token_brings_its_position_back_on_any_replica() -> None:
    assert ResumeTokens(b"epoch one").open(ADA, TOKEN) == 4_711


@pytest.mark.parametrize("target", [Target(TargetKind.USER, "bob"), Target(TargetKind.MINT, "ada")])
def test_a_token_of_another_target_is_refused(target: Target) -> None:
    with pytest.raises(ResumeTokenInvalid):
        TOKENS.open(target, TOKEN)


def test_a_token_of_another_epoch_is_refused() -> None:
    with pytest.raises(ResumeTokenInvalid):
        ResumeTokens(b"epoch two").open(ADA, TOKEN)


@pytest.mark.parametrize(
    "token", ["x", "not base64!", "ÿÿÿÿ", TOKEN[:-4], TOKEN + "AAAA", "A" * 28]
)
def test_a_malformed_token_is_refused(token: str) -> None:
    with pytest.raises(ResumeTokenInvalid):
        TOKENS.open(ADA, token)


def test_a_token_with_a_changed_position_is_refused() -> None:
    forged = TOKENS.issue(ADA, 9)[:12] + TOKEN[12:]
    with pytest.raises(ResumeTokenInvalid):
        TOKENS.open(ADA, forged)
