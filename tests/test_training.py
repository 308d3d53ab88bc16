"""Training: columns, batches, the network, runs that repeat and resume."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import netdiffusion as nd
from netdiffusion.flows import FlowSet

torch = pytest.importorskip("torch")

from netdiffusion.training.config import TrainingConfig  # noqa: E402
from netdiffusion.training.data import Columns, TrainingSet  # noqa: E402
from netdiffusion.training.export import (  # noqa: E402
    columns_of,
    from_engine,
    read_pretrained,
    to_engine,
    write_model,
)
from netdiffusion.training.loop import Trainer  # noqa: E402
from netdiffusion.training.loss import draw_sigma  # noqa: E402
from netdiffusion.training.muon import Matrix, Muon, orthogonal  # noqa: E402
from netdiffusion.training.network import (  # noqa: E402
    NetworkShape,
    Places,
    RowFormer,
    cross_entropy,
)

TINY = TrainingConfig(
    width=64,
    blocks=2,
    heads=2,
    mlp=64,
    max_packets=12,
    tokens=128,
    warm_up=5,
    learning_rate=1.5e-2,
)
SAMPLER = {
    "sigmas": [20.0, 3.0, 0.5],
    "temperature": 0.0,
    "renoise_rounds": 0,
    "renoise_sigma": 0.5,
}


@pytest.fixture(scope="session")
def flows() -> FlowSet:
    """Take some lab flows of three classes."""
    lab = nd.load_lab_flows("train").select(["lab_dns", "lab_ntp", "lab_redis"])
    return lab.select(np.arange(0, len(lab), 3))


def trained(flows: FlowSet, steps: int, config: TrainingConfig = TINY) -> Trainer:
    """Return a trainer after some steps."""
    trainer = Trainer(TrainingSet(flows, config), config, seed=3)
    trainer.run(minutes=None, steps=steps)
    return trainer


def test_columns_give_back_every_cell(flows: FlowSet) -> None:
    """Columns and constants together are the canonical rows."""
    rows = flows.canonical()
    columns = Columns.of(rows)
    drawn = rows[:, columns.first_cell]
    cell = columns.column_of_cell
    again = np.where(cell < 0, columns.constant, drawn[:, np.maximum(cell, 0)])
    assert np.array_equal(again, rows)
    assert len(columns) < 400


def test_no_two_columns_are_the_same(flows: FlowSet) -> None:
    """Identical cells share a column."""
    rows = flows.canonical()
    drawn = rows[:, Columns.of(rows).first_cell]
    assert np.unique(drawn, axis=1).shape == drawn.shape


def test_classes_tell_the_ports_of_their_servers(flows: FlowSet) -> None:
    """Ports that flows share, the commonest first; none where many use their own."""
    ports = flows.ports.copy()
    redis = np.flatnonzero(flows.labels == "lab_redis")
    ports[redis[:3], 1] = 7000
    ports[np.flatnonzero(flows.labels == "lab_ntp"), 1] += np.arange(
        np.count_nonzero(flows.labels == "lab_ntp"), dtype=np.uint16
    )
    told = {
        c["name"]: c.get("server_ports")
        for c in TrainingSet(replace(flows, ports=ports), TINY).classes()
    }
    assert told["lab_redis"] == {"tcp": [6379, 7000]}
    assert told["lab_ntp"] is None
    assert told["lab_dns"]["udp"] == [53]


def test_classes_tell_the_ranges_of_their_clients(flows: FlowSet) -> None:
    """Ports that flows share, and ranges of 1,024; none where there is no port."""
    ports = flows.ports.copy()
    redis = np.flatnonzero(flows.labels == "lab_redis")
    ports[redis, 0] = 40000
    ports[redis[:3], 0] = 5, 61000, 61400
    ports[flows.labels == "lab_ntp", 0] = 0
    classes = TrainingSet(replace(flows, ports=ports), TINY).classes()
    told = {c["name"]: c.get("client_ports") for c in classes}
    shared = len(redis) - 3
    wanted = [[1, 2047, 1], [40000, 40000, shared], [59392, 61438, 2]]
    assert told["lab_redis"] == {"tcp": wanted}
    assert told["lab_ntp"] is None


def test_classes_tell_profiles_by_length_and_their_gaps(flows: FlowSet) -> None:
    """The profiles' lengths add up to the class's; gaps are of the packets learned."""
    for told in TrainingSet(flows, TINY).classes():
        total: dict[str, int] = {}
        for profile in told["profiles"]:
            for length, number in profile["lengths"].items():
                total[length] = total.get(length, 0) + number
        assert total == told["lengths"]
        mine = flows.select(told["name"]).head(TINY.max_packets)
        gaps = sum(sum(told_at["bins"].values()) for told_at in told["gaps"])
        assert gaps == mine.n_packets.sum() - len(mine)


def test_batches_repeat_and_hold_like_lengths(flows: FlowSet) -> None:
    """The same seed draws the same flows; padding is small."""
    data = TrainingSet(flows, TINY)
    for step in range(20):
        batch, again = data.batch([1, step, 0]), data.batch([1, step, 0])
        assert np.array_equal(batch.cells, again.cells)
        assert np.array_equal(batch.classes, again.classes)
        assert batch.lengths.min() * 1.15 >= batch.lengths.max() - 1
        assert batch.classes.max() <= len(data.names)
    assert data.lengths.max() <= TINY.max_packets


def test_reveals_are_of_every_kind(flows: FlowSet) -> None:
    """Whole fields, first packets and the rest; about half of the cells in all."""
    data = TrainingSet(flows, TINY)
    fields, options = data.columns.fields()
    assert options.any() and not options.all()
    shares, whole, first = [], 0, 0
    for step in range(40):
        batch = data.batch([0, step, 0])
        known = data.reveal(batch, [0, step, 0], more=False)
        held = data.reveal(batch, [0, step, 0], more=True)
        assert np.array_equal(held, data.reveal(batch, [0, step, 0], more=True))
        assert not np.any(known & ~held)
        open_ = ~known.any(axis=(1, 2))
        for mine, length in zip(held[open_], batch.lengths[open_], strict=True):
            shares.append(mine[:length].mean())
            by_field = (mine[:1] == mine).all()
            whole += by_field and 0 < len(np.unique(fields[mine[0]])) < 20
            rows = mine.all(axis=1)
            number = int(rows.sum())
            first += mine.any() and rows[:number].all() and not mine[number:].any()
    assert 0.3 < np.mean(shares) < 0.7
    assert whole > 10 and first > 10


def test_most_flows_are_given_their_profile(flows: FlowSet) -> None:
    """Four in five; the same cells in all packets, and in all flows of a profile."""
    data = TrainingSet(flows, TINY)
    known, cells = [], {}
    for step in range(40):
        batch = data.batch([0, step, 0])
        held = data.reveal(batch, [0, step, 0], more=False)
        assert np.array_equal(held, np.repeat(held[:, :1], held.shape[1], axis=1))
        for profile, mine in zip(batch.profiles.tolist(), held[:, 0], strict=True):
            known.append(mine.any())
            if mine.any():
                assert np.array_equal(cells.setdefault(profile, mine), mine)
    assert 0.7 < np.mean(known) < 0.9 and len(cells) > 2


def test_held_cells_cost_nothing_and_are_seen(flows: FlowSet) -> None:
    """With all cells held the loss is 0; a held cell is not read from the noise."""
    trainer = trained(flows, 3)
    batch = trainer.data.batch([0, 0, 0])
    held = torch.ones(batch.cells.shape)
    dice = torch.Generator().manual_seed(0)
    assert float(trainer._loss(batch, dice, True, held).detach()) == 0.0
    places = Places.of(batch.lengths)
    x = torch.randn((*held.shape[:2], 3, held.shape[2]))
    estimate = torch.rand(x.shape)
    classes, sigma = torch.from_numpy(batch.classes), torch.full((len(x),), 3.0)
    with torch.no_grad():
        one = trainer.network(x, estimate, places, classes, sigma, held)
        two = trainer.network(x, None, places, classes, 1 + 0 * sigma, held)
        free = trainer.network(x, estimate, places, classes, sigma)
        cond = trainer.network.condition(places, classes, sigma)
    assert cond.isfinite().all() and one.isfinite().all()
    assert not torch.allclose(one, free) and not torch.equal(one, two)
    token = trainer.network.embed(x, estimate, places, sigma, held)
    again = trainer.network.embed(x, None, places, 1 + sigma, held)
    assert torch.allclose(token, again, atol=1e-5)


def test_muon_makes_matrices_orthogonal() -> None:
    """Singular values become about 1; two processes share the matrices."""
    torch.manual_seed(0)
    for shape in ((8, 40), (40, 8), (16, 16)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
        assert float(values.min()) > 0.3 and float(values.max()) < 1.3
    matrices = [Matrix(0, (4, 6)), Matrix(24, (4, 4)), Matrix(40, (2, 3))]
    weights, gradient = torch.zeros(46), torch.randn(46)
    alone = Muon(weights, gradient, matrices, half=False)
    alone.step(0.1)
    assert float(weights.abs().min()) > 0
    shares = [
        Muon(weights, gradient, matrices, half=False, rank=r, world=2).mine
        for r in (0, 1)
    ]
    assert sorted(m.start for part in shares for m in part) == [0, 24, 40]


def test_short_flows_and_empty_sets_are_told(flows: FlowSet) -> None:
    """Nothing to train on is one clear error."""
    with pytest.raises(nd.Error, match="no flow has 500 packets"):
        TrainingSet(flows, TrainingConfig(min_packets=500))


def test_cross_entropy_is_torchs() -> None:
    """Value and gradient of the fused loss."""
    logits = torch.randn(2, 3, 3, 5, requires_grad=True)
    target = torch.randint(0, 3, (2, 3, 5))
    weight = torch.rand(2, 3, 5)
    plain = torch.nn.functional.cross_entropy(
        logits.movedim(2, 1), target, reduction="none"
    )
    (expected,) = torch.autograd.grad((plain * weight).sum(), logits)
    one_hot = torch.nn.functional.one_hot(target, 3).movedim(-1, 2).float()
    loss = cross_entropy(logits, one_hot, weight)
    (found,) = torch.autograd.grad(loss, logits)
    assert torch.allclose(loss, (plain * weight).sum(), atol=1e-5)
    assert torch.allclose(found, expected, atol=1e-6)


def test_a_flow_does_not_see_its_neighbours() -> None:
    """Padding and other flows of a batch change nothing (float32 sums: 1e-4)."""
    torch.manual_seed(0)
    shape = NetworkShape(columns=9, width=64, blocks=2, heads=2, mlp=64, classes=2)
    network = RowFormer(shape).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    lengths = np.array([3, 5, 4])
    x = torch.randn(3, 5, 3, 9)
    estimate = torch.rand(3, 5, 3, 9)
    classes, sigma = torch.tensor([0, 1, 2]), torch.tensor([0.3, 2.0, 40.0])
    with torch.no_grad():
        both = network(x, estimate, Places.of(lengths), classes, sigma)
        for i, n in enumerate(lengths):
            one = slice(i, i + 1)
            alone = network(
                x[one, :n],
                estimate[one, :n],
                Places.of(lengths[one]),
                classes[one],
                sigma[one],
            )
            assert torch.allclose(both[one, :n], alone, atol=1e-4)


def test_shapes_that_the_engine_cannot_run_are_refused() -> None:
    """Width and head width are multiples of 32 and 8."""
    good = {"columns": 4, "blocks": 1, "mlp": 32, "classes": 1}
    with pytest.raises(ValueError, match="multiple of 32"):
        RowFormer(NetworkShape(width=48, heads=2, **good))
    with pytest.raises(ValueError, match="multiple of 8"):
        RowFormer(NetworkShape(width=64, heads=16, **good))


def test_noise_levels_are_stratified(flows: FlowSet) -> None:
    """A fifth of them is high, and none is outside its range."""
    trainer = Trainer(TrainingSet(flows, TINY), TINY, seed=0)
    sigma = draw_sigma(trainer.config, 1000, torch.Generator().manual_seed(1))
    low, top = TINY.high_noise_range
    assert 0.2 < float((sigma > low).float().mean()) < 0.5
    assert float(sigma.max()) < top + 200 and float(sigma.min()) > 1e-3


def test_loss_falls_and_runs_repeat(flows: FlowSet) -> None:
    """Thirty steps learn something; the same seed gives the same weights."""
    one, two = trained(flows, 30), trained(flows, 30)
    assert one.history["loss"][-1] < 0.8 * one.history["loss"][0]
    assert torch.equal(one.flat, two.flat)
    assert torch.equal(one.average, two.average)
    assert one.history["step"] == [20, 30]


def test_a_resumed_run_is_the_same_run(flows: FlowSet, tmp_path: Path) -> None:
    """Stopped after 8 of 20 steps and resumed: bit for bit the same."""
    config = TINY
    whole = trained(flows, 20)
    first = Trainer(TrainingSet(flows, config), config, seed=3)
    original = first._done
    first._done = lambda minutes, steps: (  # type: ignore[method-assign]
        1.0 if first.step == 8 else original(minutes, steps)
    )
    first.run(minutes=None, steps=20, checkpoint=tmp_path / "checkpoint")
    second = Trainer(TrainingSet(flows, config), config, seed=3)
    second.load(tmp_path / "checkpoint")
    assert second.step == 8
    second.run(minutes=None, steps=20)
    assert torch.equal(whole.flat, second.flat)
    assert torch.equal(whole.average, second.average)


def test_checkpoints_of_other_runs_are_refused(flows: FlowSet, tmp_path: Path) -> None:
    """Other seeds and files that are no checkpoints are told apart."""
    path = tmp_path / "checkpoint"
    data = TrainingSet(flows, TINY)
    Trainer(data, TINY, seed=3).save(path)
    with pytest.raises(nd.Error, match="another seed"):
        Trainer(data, TINY, seed=4).load(path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(nd.FormatError, match="not a training checkpoint"):
        Trainer(data, TINY, seed=3).load(path)


def test_engine_order_and_back() -> None:
    """Planes to pixels: index j * 3 + c on the axes of cells."""
    columns = 4
    planes = np.arange(7 * columns, dtype=np.float32)[None]
    output = np.arange(3 * columns, dtype=np.float32)
    tensors = {
        "in.weight": planes,
        "final.out.weight": output[:, None],
        "final.out.bias": output,
    }
    pixels = to_engine(tensors)["in.weight"]
    assert np.array_equal(pixels[0, 6 * columns :], planes[0, 6 * columns :])
    for half in range(2):
        for j in range(columns):
            for c in range(3):
                place = half * 12 + j * 3 + c
                assert pixels[0, place] == half * 12 + c * columns + j
    for name, value in from_engine(to_engine(tensors)).items():
        assert np.array_equal(value, tensors[name])


def test_a_run_can_start_from_a_model(flows: FlowSet, tmp_path: Path) -> None:
    """Weights are taken over by column and class name, for other classes too."""
    write_model(trained(flows, 30), tmp_path / "model", SAMPLER)
    other = flows.select(["lab_dns", "lab_redis"])
    fresh = Trainer(TrainingSet(other, TINY), TINY, seed=9)
    untrained = fresh._train_step(0.0)
    fresh = Trainer(TrainingSet(other, TINY), TINY, seed=9)
    assert fresh.adopt(read_pretrained(tmp_path / "model")) > 50
    assert fresh._train_step(0.0) < 0.9 * untrained
    wide = TrainingConfig(width=96, blocks=2, heads=2, mlp=64)
    with pytest.raises(nd.Error, match="another size"):
        Trainer(TrainingSet(other, wide), wide, seed=9).adopt(
            read_pretrained(tmp_path / "model")
        )


def test_engine_and_torch_agree(flows: FlowSet, tmp_path: Path) -> None:
    """Every block and the logits, within 1e-3 of float16 weights in float32 sums."""
    trainer = trained(flows, 30)
    write_model(trainer, tmp_path / "model", SAMPLER)
    pretrained = read_pretrained(tmp_path / "model")
    shape = trainer.network.shape
    network = RowFormer(shape).eval()
    network.load_state_dict({k: torch.tensor(v) for k, v in pretrained.tensors.items()})
    rng = np.random.default_rng(0)
    n, count = 4, shape.columns
    x = rng.normal(size=(3, n, 3, count)).astype(np.float32)
    p = rng.dirichlet((1.0, 1.0, 1.0), (3, n, count)).transpose(0, 1, 3, 2)
    estimate = (2 * p - 1).astype(np.float32)
    classes = np.array([0, shape.classes, 1], np.int32)
    sigma = np.array([0.7, 3.0, 60.0], np.float32)
    trace: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        network(
            torch.from_numpy(x),
            torch.from_numpy(estimate),
            Places.of(np.full(3, n)),
            torch.from_numpy(classes.astype(np.int64)),
            torch.from_numpy(sigma),
            trace=trace,
        )
    sizes = json.loads((tmp_path / "model" / "config.json").read_text())["network"]
    model = nd._core.Model(
        tmp_path / "model" / "model.safetensors", **sizes, device="cpu"
    )
    pixels = [
        np.ascontiguousarray(a.transpose(0, 1, 3, 2).reshape(3 * n, count, 3))
        for a in (x, estimate)
    ]
    found = model.forward(*pixels, np.arange(0, 3 * n + 1, n), classes, sigma)
    logits = trace["logits"].numpy().transpose(0, 1, 3, 2).reshape(3 * n, count, 3)
    logits -= logits[:, :, 2:]  # only differences count
    near = {"rtol": 1e-3, "atol": 1e-3}
    np.testing.assert_allclose(found["logits"].reshape(logits.shape), logits, **near)
    for number in range(shape.blocks):
        expected = trace[f"block.{number}"].numpy().reshape(3 * n, -1)
        np.testing.assert_allclose(found["blocks"][number], expected, **near)


def test_model_directory_is_what_the_contract_says(
    flows: FlowSet, tmp_path: Path
) -> None:
    """Files, names and types of a model directory."""
    trainer = trained(flows, 2)
    write_model(trainer, tmp_path / "model", SAMPLER)
    names = {p.name for p in (tmp_path / "model").iterdir()}
    assert names == {"config.json", "layout.json", "classes.json", "model.safetensors"}
    columns = columns_of(tmp_path / "model")
    assert np.array_equal(columns.first_cell, trainer.data.columns.first_cell)
    classes = json.loads((tmp_path / "model" / "classes.json").read_text())
    assert [c["name"] for c in classes] == ["lab_dns", "lab_ntp", "lab_redis"]
    assert sum(classes[0]["lengths"].values()) == classes[0]["flows"]


def test_settings_of_a_toml_file(tmp_path: Path) -> None:
    """Unknown names, wrong types and bad TOML are one clear error each."""
    path = tmp_path / "train.toml"
    path.write_text("width = 64\nlearning_rate = 1e-4\nhigh_noise_range = [5, 80]\n")
    config = TrainingConfig.from_toml(path)
    assert (config.width, config.learning_rate) == (64, 1e-4)
    for text, told in (
        ("widht = 64\n", "no setting is named 'widht'"),
        ("width = 'x'\n", "width must be int"),
        ("width = \n", "not TOML"),
    ):
        path.write_text(text)
        with pytest.raises(nd.Error, match=told):
            TrainingConfig.from_toml(path)


def test_two_processes_train_together(flows: FlowSet, tmp_path: Path) -> None:
    """Torchrun needs no other script; process 0 alone writes."""
    flows.save(tmp_path / "flows.npz")
    (tmp_path / "tiny.toml").write_text(
        "width = 32\nblocks = 1\nheads = 2\nmlp = 32\nmax_packets = 6\ntokens = 64\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "netdiffusion", "train"]
    command += [str(tmp_path / "flows.npz"), "-o", str(tmp_path / "model")]
    command += ["--config", str(tmp_path / "tiny.toml"), "--minutes", "0.02"]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr[-3000:]
    assert nd.FlowDiffusion.from_pretrained(tmp_path / "model").classes_
    assert not (tmp_path / "model.checkpoint").exists()
