"""Ports: the standard ones when free, others when not, the same ones next time."""

import socket
from pathlib import Path

from devstack.ports import LOOPBACK, choose_ports, free_port, is_free


def test_free_standard_ports_are_taken(tmp_path: Path) -> None:
    standard = {"points": free_port(), "nft": free_port()}
    assert choose_ports(standard, tmp_path / "ports.json") == standard


def test_a_taken_port_is_replaced_and_the_replacement_remembered(tmp_path: Path) -> None:
    memory = tmp_path / "ports.json"
    with socket.create_server((LOOPBACK, 0)) as squatter:
        standard = {"points": squatter.getsockname()[1]}
        chosen = choose_ports(standard, memory)
        assert chosen["points"] != standard["points"]
        assert is_free(chosen["points"])
    assert choose_ports(standard, memory) == chosen


def test_names_never_share_a_port(tmp_path: Path) -> None:
    port = free_port()
    chosen = choose_ports({"points": port, "nft": port, "gateway": port}, tmp_path / "ports.json")
    assert len(set(chosen.values())) == 3
