"""The fitted group of collectives between GPUs (families/communication.yaml)."""

from __future__ import annotations

from typing import NamedTuple


class Collectives(NamedTuple):
    """What NCCL's collectives cost between the GPUs of a server: rings by protocol, exchanges."""

    setup_s: float
    ll_hop_s: float
    ll128_hop_s: float
    simple_hop_s: float
    ll_efficiency: float
    ll128_efficiency: float
    simple_efficiency: float
    exchange_setup_s: float
    exchange_simple_s: float
    peer_s: float
    exchange_ll_efficiency: float
    exchange_efficiency: float
    peer_efficiency: float
    contention: float
    eager_s_per_byte: float
