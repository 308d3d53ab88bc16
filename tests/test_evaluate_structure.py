"""Figures of order, dependence, rows and membership: laws and small cases by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import netdiffusion as nd
from netdiffusion.evaluate import (
    CanonicalFlows,
    compare,
    critic,
    dependence,
    fidelity,
    membership,
    privacy,
    rows,
    sequence,
)
from netdiffusion.layout import get_layout

SEED = 5
CANONICAL = get_layout("netdiffusion-canonical")
CLASSES = ["lab_dns", "lab_http", "lab_mqtt", "lab_ntp", "lab_smtp"]


@pytest.fixture(scope="module")
def lab() -> nd.FlowSet:
    """Flows of five services, the large ones cut."""
    return nd.load_lab_flows("train").select(CLASSES).head(24)


def tcp_flows(*flags: str) -> nd.FlowSet:
    """Make flows of bare TCP rows: a letter a packet, lower case from the server."""
    layout = get_layout("netdiffusion-1088")
    packets = "".join(flags)
    cells = np.full((len(packets), layout.cells), -1, np.int8)
    first, last = layout.field("tcp_sprt").first_cell, layout.field("tcp_opt")
    cells[:, first : last.first_cell] = 0
    places = {"S": "tcp_syn", "A": "tcp_ackf", "F": "tcp_fin", "R": "tcp_rst"}
    for line, letter in zip(cells, packets.upper(), strict=True):
        line[layout.field(places[letter]).first_cell] = 1
    n = len(flags)
    return nd.FlowSet(
        rows=cells,
        offsets=np.cumsum([0, *map(len, flags)]),
        timestamps=np.arange(len(packets)),
        direction=np.array([letter.islower() for letter in packets]),
        wire_length=np.full(len(packets), 60),
        addresses=np.zeros((n, 2, 16)),
        ports=np.zeros((n, 2)),
        ip_version=np.full(n, 4),
        protocol=np.full(n, 6),
        labels=np.array(["x"] * n),
    )


def test_flag_bigrams_by_hand() -> None:
    """Every segment with the one before it, nothing before a flow's first."""
    pairs, flow = sequence.flag_bigrams(tcp_flows("Sa", "F"))
    syn, ack, fin = 2 + 1, 16 + 1, 1 + 1
    assert pairs.tolist() == [syn, 1024 * syn + ack, fin]
    assert flow.tolist() == [0, 0, 1]


def test_direction_runs_by_hand() -> None:
    """Runs end where the sender or the flow changes."""
    length, sender, flow = sequence.direction_runs(tcp_flows("SaAA", "AAa"))
    assert length.tolist() == [1, 1, 2, 2, 1]
    assert sender.tolist() == [0, 1, 0, 0, 1]
    assert flow.tolist() == [0, 0, 0, 1, 1]


def test_sequence_of_known_sets() -> None:
    """Nothing in common is one bit, the same is 0, half the mass is between."""
    one, other = tcp_flows("SA"), tcp_flows("FR")
    weights = np.ones(1)
    assert sequence.measure_sequence(one, one, weights)["flags"]["jsd"] == 0
    told = sequence.measure_sequence(one, other, weights)
    assert told["flags"]["jsd"] == pytest.approx(1)
    assert told["runs"] == {"jsd": 0, "emd": 0}
    told = sequence.measure_sequence(one, tcp_flows("SA", "SR"), np.ones(2))
    assert told["flags"]["jsd"] == pytest.approx(0.25 * 0.6226, abs=0.2)
    assert 0 < told["flags"]["jsd"] < 1


def test_long_flows_do_not_drown_the_others() -> None:
    """With every flow weighing the same, 40 acknowledgements more change little."""
    short, long = tcp_flows("SA", "SAF"), tcp_flows("SA", "SA" + 40 * "A" + "F")
    told = sequence.measure_sequence(short, long, np.ones(2))["flags"]
    assert told["jsd_flow"] < told["jsd"]


codes = st.lists(st.integers(0, 5), min_size=1, max_size=30).map(np.array)


@settings(deadline=None)
@given(codes, codes)
def test_code_divergence_is_scipys(a: np.ndarray, b: np.ndarray) -> None:
    """The same as scipy's, which is the square root, on the counts."""
    from scipy.spatial.distance import jensenshannon

    p, q = np.bincount(a, minlength=6), np.bincount(b, minlength=6)
    ours = sequence.code_divergence(a, b, np.ones(len(a)), np.ones(len(b)))
    theirs = np.nan_to_num(jensenshannon(p, q, base=2)) ** 2
    assert ours == pytest.approx(theirs, abs=1e-9)
    assert np.isnan(sequence.code_divergence(a, b[:0], np.ones(len(a)), np.ones(0)))


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_mutual_information_is_sklearns(seed: int) -> None:
    """The same number, in bits; a weight is so many packets."""
    from sklearn.metrics import mutual_info_score

    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 4, (2, 40))
    times = rng.integers(1, 4, 40)
    theirs = mutual_info_score(np.repeat(a, times), np.repeat(b, times)) / np.log(2)
    ours = dependence.mutual_information(a, b, times.astype(float), (4, 4))
    assert ours == pytest.approx(theirs, abs=1e-9)


def test_mutual_information_of_known_columns() -> None:
    """A fair bit with itself has one bit, with an independent one none."""
    a, b, one = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.ones(4)
    assert dependence.mutual_information(a, a, one, (2, 2)) == pytest.approx(1)
    assert dependence.mutual_information(a, b, one, (2, 2)) == pytest.approx(0)
    assert dependence.mutual_information(a, b, np.zeros(4), (2, 2)) == 0


def test_dependence_sees_what_marginals_do_not(lab: nd.FlowSet) -> None:
    """TTLs handed round at random leave all marginals and break the dependence."""
    mixed = lab.select(slice(None))
    cells = mixed.rows[:, get_layout(lab.layout).slice("ipv4_ttl")]
    four = np.flatnonzero(cells[:, 0] >= 0)
    cells[four] = cells[np.random.default_rng(SEED).permutation(four)]
    told, same = compare(lab, mixed, n_packets=24), compare(lab, lab, n_packets=24)
    assert told["mean_jsd"] == pytest.approx(0, abs=1e-9)
    assert same["dependence"]["mean_difference"] == pytest.approx(0, abs=1e-9)
    assert same["dependence"]["mean_difference_next"] == pytest.approx(0, abs=1e-9)
    assert told["dependence"]["mean_difference"] > 0.02
    ttl = told["dependence"]["fields"].index("ttl")
    lost = np.subtract(told["dependence"]["real"], told["dependence"]["synthetic"])
    assert np.abs(np.delete(np.delete(lost, ttl, 0), ttl, 1)).max() < 1e-3
    assert lost[ttl].max() > 0.1


def test_packet_fields_are_what_the_headers_say(lab: nd.FlowSet) -> None:
    """DNS: UDP, no flags, port 53, and a TTL."""
    flows = lab.select("lab_dns")
    fields = dependence.packet_fields(flows.select(flows.protocol == 17))
    column = dict(zip(dependence.FIELDS, fields.T, strict=True))
    assert set(column["server_port"].tolist()) == {53}
    assert not column["flags"].any() and not column["window"].any()
    assert (column["ttl"] > 0).all() and (column["transport"] & 4).all()


def test_option_values_by_hand() -> None:
    """MSS behind NOPs, no option of another length, nothing beyond the end."""
    lines = np.zeros((5, 40), np.uint8)
    lines[0, :6] = [1, 1, 2, 4, 5, 180]
    lines[1, :7] = [3, 3, 7, 2, 4, 0, 9]
    lines[2, :4] = [2, 3, 1, 1]
    lines[3, 38:] = [2, 4]
    lines[3, :38] = 1
    lines[4, :6] = [8, 0, 2, 4, 1, 1]  # a length of 0 ends the list
    assert rows.option_values(lines, 2, 4).tolist() == [1460, 9, -1, -1, -1]
    assert rows.option_values(lines, 3, 3).tolist() == [-1, 7, -1, -1, -1]


def test_constancy_counts_directions(lab: nd.FlowSet) -> None:
    """Of real flows all TTLs are constant; one packet spoils one direction."""
    real = CanonicalFlows.of(lab)
    told = rows.constancy(real)["ttl"]
    assert told["share"] == 1 and told["directions"] > 100
    ttl = CANONICAL.slice("ipv4_ttl")
    four = CANONICAL.has_header(real.rows, "ipv4")
    flow = np.repeat(np.arange(len(lab)), lab.n_packets)
    way = real.rows[:, CANONICAL.field("motion_direction").first_cell]
    line = next(
        i
        for i in np.flatnonzero(four)
        if np.sum((flow == flow[i]) & (way == way[i])) > 1
    )
    real.rows[line, ttl.stop - 1] ^= 1
    spoiled = rows.constancy(real)["ttl"]
    assert spoiled["directions"] == told["directions"]
    assert spoiled["share"] == pytest.approx(1 - 1 / told["directions"])


def test_constancy_of_a_syn_sent_again() -> None:
    """A second SYN with another window scale is counted; one SYN is not."""
    flows = tcp_flows("SS", "Sa")
    options = get_layout(flows.layout).slice("tcp_opt")
    for line, scale in zip(flows.rows, (7, 8, 7, 7), strict=True):
        header = np.zeros(40, np.uint8)
        header[:3] = [3, 3, scale]
        line[options] = np.unpackbits(header)
    told = rows.constancy(CanonicalFlows.of(flows))
    assert told["window_scale"] == {"share": 0.0, "directions": 1}
    assert told["mss"] == {"share": None, "directions": 0}


def test_rows_of_real_flows(lab: nd.FlowSet) -> None:
    """Known rows are all verbatim; new real rows break no rule."""
    train, test = lab.split(0.4, random_state=SEED)
    told = rows.measure_rows(train, CanonicalFlows.of(train), test)
    assert told["verbatim"] == 1 and told["novel"] == 0
    assert 0.3 < told["real"]["verbatim"] < 1 and told["real"]["novel"] > 0
    assert told["real"]["novel_broken"] == 0


def test_broken_rows_are_told_by_rule(lab: nd.FlowSet) -> None:
    """SYN with FIN, and a TTL of 0, are found in the rows that have them."""
    drawn = CanonicalFlows.of(lab.select("lab_http").head(4))
    syn, fin = (CANONICAL.field(n).first_cell for n in ("tcp_syn", "tcp_fin"))
    ttl = CANONICAL.slice("ipv4_ttl")
    wrong = drawn.rows.copy()
    wrong[0, [syn, fin]] = 1
    four = np.flatnonzero(CANONICAL.has_header(wrong, "ipv4"))
    wrong[four[-1], ttl] = 0
    names = [rule.name for rule in nd.rules()]
    broken = rows.broken_rules(wrong)
    assert broken[0, names.index("tcp-handshake")]
    assert broken[four[-1], names.index("ip-ttl")]
    assert broken.any(axis=1).sum() == 2
    told = rows.measure_rows(lab, drawn._replace(rows=wrong))
    assert told["novel_broken"] > 0 and set(told["broken_by"]) == {
        "tcp-handshake",
        "ip-ttl",
    }


def test_class_mean_gives_classes_the_same_weight() -> None:
    """Three rows of one class and one of another."""
    values, labels = np.array([1, 1, 0, 0]), np.array(["a", "a", "a", "b"])
    assert rows.class_mean(values, labels) == pytest.approx(1 / 3)
    assert np.isnan(rows.class_mean(values[:0], labels[:0]))


def test_stratified_auc_compares_inside_classes() -> None:
    """A class that is easier as a whole is no leak; in one class it is the AUC."""
    from sklearn.metrics import roc_auc_score

    labels = np.array(["a", "b"])
    scores = np.array([1.0, 5.0])
    assert membership.stratified_auc(scores, scores, labels, labels) == 0.5
    assert membership.stratified_auc(scores, scores + 1, labels, labels) == 1
    none = np.array(["c"])
    assert membership.stratified_auc(scores, scores[:1], labels, none) is None
    a, b = np.random.default_rng(SEED).normal(size=(2, 30)).round(1)
    same = np.array(["a"] * 30)
    theirs = roc_auc_score(np.repeat([0, 1], 30), np.concatenate([a, b]))
    assert membership.stratified_auc(a, b, same, same) == pytest.approx(theirs)


def test_copied_flows_give_members_away(lab: nd.FlowSet) -> None:
    """Synthetic flows that are the training flows: the attack succeeds."""
    train, test = lab.select(["lab_http", "lab_smtp"]).split(0.5, random_state=SEED)
    told = membership.measure_membership(train, test, train)
    assert told["nearest_auc"] > 0.9 and told["loss_auc"] is None
    again = membership.measure_membership(train, test, test)
    assert again["nearest_auc"] < 0.1


def test_losses_are_of_the_flow_and_its_class(lab: nd.FlowSet) -> None:
    """A flow alone has the loss it has among others; a wrong label costs more."""
    model = nd.FlowDiffusion.from_pretrained()
    flows = lab.select(["lab_dns", "lab_ntp"]).select(slice(60, 84)).head(8)
    assert len(flows.counts) == 2 or len(flows) == 24
    losses = membership.flow_losses(model, flows, sigmas=(2.0,))
    alone = membership.flow_losses(model, flows.select([3]), sigmas=(2.0,))
    assert losses.shape == (24,) and (losses > 0).all()
    assert alone[0] == pytest.approx(losses[3], rel=1e-3)
    wrong = flows.select(slice(None))
    wrong.labels = np.array(["lab_rtp"] * len(flows))
    assert membership.flow_losses(model, wrong, sigmas=(8.0,)).mean() > losses.mean()
    with pytest.raises(ValueError, match="without packets"):
        membership.flow_losses(model, flows.head(0))


def test_draws_have_the_classes_of_the_other_set(lab: nd.FlowSet) -> None:
    """No flow twice, classes near the wanted shares, none that is unknown."""
    rng = np.random.default_rng(SEED)
    like = lab.select(["lab_dns", "lab_ntp"])
    drawn = critic.draw_like(lab, like, 60, rng)
    assert set(drawn.counts) == {"lab_dns", "lab_ntp"} and len(drawn) == 60
    starts = drawn.timestamps[drawn.offsets[:-1]]
    assert len(np.unique(starts)) == len(drawn)
    assert not len(critic.draw_like(lab, lab.select([]), 5, rng))


def test_distinct_columns_lose_nothing() -> None:
    """Constants and repetitions go, all else stays in order."""
    x = np.array([[1, 5, 1, 0, 2], [0, 5, 0, 0, 3]])
    assert critic.distinct_columns(x).tolist() == [[1, 2], [0, 3]]


def test_nearer_than_real_flows_shows(lab: nd.FlowSet) -> None:
    """Copies have a ratio of 0, other real flows one near 1."""
    train, rest = lab.split(0.6, random_state=SEED)
    other, test = rest.split(0.5, random_state=SEED)
    assert privacy.nearest(train, train, test)["ratio"] == 0
    assert 0.6 < privacy.nearest(train, other, test)["ratio"] < 1.7


def test_whole_flow_distances_by_hand() -> None:
    """Sizes and durations: one flow of 2 packets against one of 3."""
    a, b = tcp_flows("SA"), tcp_flows("SAA")
    emd = fidelity.measure_fidelity(a, b)["emd"]
    assert emd["flow_packets"] == 1 and emd["flow_bytes"] == 60
    assert emd["flow_duration"] == pytest.approx(1e-9)
    assert emd["log_flow_duration"] == 0  # both below 1 us
