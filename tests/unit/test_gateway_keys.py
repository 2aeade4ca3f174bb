"""The seed of a wallet stays in one object, and nothing that people read shows it."""

import io
import logging
import pickle
import traceback
from pathlib import Path

import pytest

from chain_gateway.wallet import HighloadWallet, MintingKey
from mesh import telemetry
from mesh.config import ConfigurationError

SEED = bytes(range(32, 64))


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "wallet.key"
    path.write_text(SEED.hex())
    path.chmod(0o600)
    return path


def shows_seed(text: str) -> bool:
    return SEED.hex() in text.lower() or repr(SEED)[2:-1] in text


def test_a_key_shows_its_public_half_only(key_file: Path) -> None:
    key = MintingKey.load(key_file)
    wallet = HighloadWallet(key, 3600)
    for shown in (repr(key), str(key), f"{key}", repr(wallet), repr(vars(key)), repr(vars(wallet))):
        assert not shows_seed(shown)
    assert key.public.hex() in repr(key)


def test_a_key_cannot_be_written_away(key_file: Path) -> None:
    with pytest.raises(TypeError):
        pickle.dumps(HighloadWallet(MintingKey.load(key_file), 3600))


def test_a_key_that_cannot_be_read_is_not_shown(key_file: Path) -> None:
    """Not even a part of it, not even in the trace of the error."""
    key_file.write_text(SEED.hex() + "zz")
    with pytest.raises(ConfigurationError) as caught:
        MintingKey.load(key_file)
    assert not shows_seed("".join(traceback.format_exception(caught.value)))


def test_a_key_that_is_logged_is_not_shown(
    key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = MintingKey.load(key_file)
    log = telemetry.logger("test.keys")
    sink = io.StringIO()
    handler = logging.StreamHandler(sink)
    logging.getLogger().addHandler(handler)
    try:
        log.warning("key", key=key, wallet=HighloadWallet(key, 3600))
        try:
            raise ValueError(key)
        except ValueError:
            log.exception("failed")
    finally:
        logging.getLogger().removeHandler(handler)
    written = capsys.readouterr()
    assert "redacted" in written.out + written.err + sink.getvalue()
    assert not shows_seed(written.out + written.err + sink.getvalue())
