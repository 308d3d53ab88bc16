"""Whether the fields of a packet hang together as in real packets.

Figures of single cells cannot see that a packet has the TTL of one system and the
window of another. The mutual information of two fields, I(X; Y) = H(X) + H(Y) -
H(X, Y), can: a generator that draws each field by itself has 0 where real packets
have bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from netdiffusion.evaluate.features import log_gaps
from netdiffusion.evaluate.fidelity import Array
from netdiffusion.flows import DEFAULT_LAYOUT, FlowSet
from netdiffusion.layout import get_layout

FIELDS = (
    "transport",
    "direction",
    "ttl",
    "tos",
    "dont_fragment",
    "length",
    "server_port",
    "flags",
    "window",
    "options",
    "seq_step",
    "ack_step",
    "id_step",
    "gap",
)
KINDS = 32  # values told apart of each field, the rarest taken together

Codes = npt.NDArray[np.int64]


def packet_fields(flows: FlowSet) -> Codes:
    """Return the fields of each packet as numbers.

    Parameters
    ----------
    flows : FlowSet

    Returns
    -------
    ndarray of int64, shape (P, 14)
        The columns of `FIELDS`, of canonical rows; 0 where a header is not there.
        Options are a number for each kind of bits; gaps are in 32 bins of log
        time, lengths of payload in bins of 32 bytes.
    """
    rows = flows.to_layout(DEFAULT_LAYOUT).canonical()
    layout = get_layout("netdiffusion-canonical")

    def value(name: str) -> Codes:
        return layout.values(rows, name)

    there = {h: layout.has_header(rows, h) for h in ("ipv6", "tcp", "udp", "icmp")}
    port = np.where(flows.direction > 0, value("tcp_sprt"), value("tcp_dprt"))
    udp = np.where(flows.direction > 0, value("udp_sport"), value("udp_dport"))
    first, last = (layout.field(n).first_cell for n in ("tcp_ns", "tcp_fin"))
    nine = 1 << np.arange(last - first, -1, -1, dtype=np.int64)
    columns = [
        there["ipv6"] + 2 * there["tcp"] + 4 * there["udp"] + 8 * there["icmp"],
        flows.direction,
        value("ipv4_ttl") + value("ipv6_hl"),
        value("ipv4_tos") + value("ipv6_tc"),
        value("ipv4_dfbit"),
        (value("ipv4_tl") + value("ipv6_len") + 31) // 32,
        port + udp + value("icmp_type"),
        (rows[:, first : last + 1] > 0) @ nine,
        value("tcp_wsize"),
        _kinds_of_bits(rows[:, layout.slice("tcp_opt")]),
        value("motion_seq"),
        value("motion_ack"),
        value("motion_id"),
        np.minimum(log_gaps(flows) / 9 * 32, 31),
    ]
    return np.stack([np.asarray(c, np.int64) for c in columns], axis=1)


def _kinds_of_bits(cells: npt.NDArray[np.int8]) -> Codes:
    """Return a number for each distinct line of cells."""
    if not len(cells):
        return np.zeros(0, np.int64)
    packed = np.concatenate(
        [np.packbits(cells > 0, axis=1), np.packbits(cells < 0, axis=1)], axis=1
    )
    out = np.zeros(len(cells), np.uint64)
    for column in packed.T:  # FNV-1a: the same bits, the same number in any set
        out = (out ^ column) * np.uint64(0x100000001B3)
    return np.asarray(out >> np.uint64(2), np.int64)


def mutual_information(
    a: Codes, b: Codes, weights: Array, kinds: tuple[int, int]
) -> float:
    """Return the mutual information of two columns of numbers from 0, in bits.

    Parameters
    ----------
    a, b : ndarray of int64, shape (N,)
    weights : ndarray of float64, shape (N,)
    kinds : tuple of int
        How many values `a` and `b` may have.

    Returns
    -------
    float
        0 for no weight.
    """
    total = weights.sum()
    if not total > 0:
        return 0.0
    joint = np.bincount(a * kinds[1] + b, weights, kinds[0] * kinds[1]) / total
    table = joint.reshape(kinds)
    apart = np.outer(table.sum(axis=1), table.sum(axis=0))
    some = table > 0
    return float((table[some] * np.log2(table[some] / apart[some])).sum())


def measure_dependence(
    real: FlowSet, synthetic: FlowSet, weights: Array, *, n_packets: int = 8
) -> dict[str, Any]:
    """Compare the mutual information of pairs of fields.

    Parameters
    ----------
    real, synthetic : FlowSet
    weights : ndarray of float64, shape (F,)
        Weight of each synthetic flow.
    n_packets : int, default 8
        Packets taken of a flow.

    Returns
    -------
    dict
        ``fields``, their names; ``real`` and ``synthetic``, matrices of bits between
        two fields of a packet (the diagonal holds entropies); ``real_next`` and
        ``synthetic_next``, between a field and a field of the flow's next packet;
        ``mean_difference`` and ``mean_difference_next``, mean absolute difference
        of the matrices (the first without its diagonal), bits. Of each field the 31
        values that are commonest in `real` are told apart from each other and
        from the rest.
    """
    a, b = real.head(n_packets), synthetic.head(n_packets)
    x, y = packet_fields(a), packet_fields(b)
    for column in range(x.shape[1]):
        x[:, column], y[:, column] = _commonest(x[:, column], y[:, column])
    w = np.repeat(weights, b.n_packets)
    told = {"real": _matrices(a, x, np.ones(len(x))), "synthetic": _matrices(b, y, w)}
    off = ~np.eye(len(FIELDS), dtype=np.bool_)
    apart = [np.abs(told["real"][i] - told["synthetic"][i]) for i in range(2)]
    out: dict[str, Any] = {
        "mean_difference": float(apart[0][off].mean()),
        "mean_difference_next": float(apart[1].mean()),
        "fields": list(FIELDS),
    }
    for name, (within, following) in told.items():
        out[name] = within.round(4).tolist()
        out[f"{name}_next"] = following.round(4).tolist()
    return out


def _commonest(x: Codes, y: Codes) -> tuple[Codes, Codes]:
    """Give the commonest values of `x` numbers from 1 and all others 0."""
    values, counts = np.unique(x, return_counts=True)
    kept = np.sort(values[np.argsort(-counts, kind="stable")[: KINDS - 1]])
    out = []
    for column in (x, y):
        place = np.minimum(np.searchsorted(kept, column), max(len(kept) - 1, 0))
        known = kept[place] == column if len(kept) else np.zeros(len(column), bool)
        out.append(np.where(known, place + 1, 0))
    return out[0], out[1]


def _matrices(flows: FlowSet, codes: Codes, weights: Array) -> tuple[Array, Array]:
    """Return the matrices inside a packet and from a packet to the next."""
    flow = np.repeat(np.arange(len(flows)), flows.n_packets)
    follows = flow[1:] == flow[:-1]
    before, after, w = codes[:-1][follows], codes[1:][follows], weights[1:][follows]
    size = codes.shape[1]
    within, following = np.zeros((size, size)), np.zeros((size, size))
    kinds = (KINDS, KINDS)
    for i in range(size):
        for j in range(size):
            following[i, j] = mutual_information(before[:, i], after[:, j], w, kinds)
            if j <= i:
                bits = mutual_information(codes[:, i], codes[:, j], weights, kinds)
                within[i, j] = within[j, i] = bits
    return within, following
