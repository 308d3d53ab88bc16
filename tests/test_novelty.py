"""Copies of training flows are drawn again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import netdiffusion as nd
from netdiffusion.novelty import check_marks, flow_marks, known_marks, pack_marks
from netdiffusion.training.config import TrainingConfig
from netdiffusion.training.data import TrainingSet

WANTED = {"lab_dns": 4, "youtube": 3}
HOW: dict[str, Any] = {"steps": 3, "device": "cpu", "seed": 3, "lengths": 4}


def marks_of(rows: np.ndarray) -> np.ndarray:
    """Return the marks of flows of four packets."""
    ends = np.arange(4, len(rows) + 1, 4)
    return flow_marks(rows, ends - 4, ends)


def knowing(marks: np.ndarray) -> nd.FlowDiffusion:
    """Return the base model, with these flows learned besides."""
    model = nd.FlowDiffusion.from_pretrained()
    entry = model._drawer.classes[0]
    entry["marks"] = pack_marks(np.concatenate([known_marks([entry]), marks]))
    return model


def test_a_copy_is_drawn_again_and_no_other_flow() -> None:
    """Whatever is drawn beside it, in one batch or in many, in one call or two."""
    first, offsets, _ = knowing(marks_of(np.zeros((0, 1104)))).sample_canonical(
        WANTED, **HOW
    )
    assert np.diff(offsets).tolist() == [4] * 7
    copies = np.array([1, 2, 6])
    model = knowing(marks_of(first)[copies])
    again, _, _ = model.sample_canonical(WANTED, **HOW)
    same = (again == first).reshape(7, -1).all(axis=1)
    assert same.tolist() == [i not in copies for i in range(7)]
    alone, _, _ = model.sample_canonical({"lab_dns": 2}, first=1, **HOW, batch_size=4)
    assert np.array_equal(alone, again[4:12])
    once_more, _, _ = knowing(
        np.concatenate([marks_of(first)[copies], marks_of(again)[:2]])
    ).sample_canonical(WANTED, **HOW)
    assert not np.isin(marks_of(once_more)[:3], marks_of(first)[copies]).any()
    assert not np.isin(marks_of(once_more)[:2], marks_of(again)[:2]).any()


def test_where_all_are_copies_the_drawing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class may have no flow that is new; then it has copies."""
    wanted, known = {"lab_dns": 2}, np.zeros(1, np.uint64)
    new, _, _ = knowing(known).sample_canonical(wanted, **HOW)
    monkeypatch.setattr(
        "netdiffusion.sampling.flow_marks", lambda rows, a, b: np.repeat(known, len(a))
    )
    drawn, _, _ = knowing(known).sample_canonical(wanted, **HOW)
    assert drawn.shape == new.shape and not np.array_equal(drawn, new)


def test_what_is_learned_is_marked() -> None:
    """A mark for each flow that differs, of the packets that are learned."""
    flows = nd.load_lab_flows("train").select(["lab_dns", "lab_http"])
    classes = TrainingSet(flows, TrainingConfig(max_packets=6)).classes()
    cut = flows.head(6)
    marks = flow_marks(cut.canonical(), cut.offsets[:-1], cut.offsets[1:])
    assert np.array_equal(known_marks(classes), np.unique(marks))
    http = known_marks([c for c in classes if c["name"] == "lab_http"])
    assert np.array_equal(http, np.unique(marks[flows.labels == "lab_http"]))


@pytest.mark.parametrize(("marks", "told"), [("abc", "base64"), ("YWJj", "3 bytes")])
def test_marks_that_are_none_are_told(marks: str, told: str) -> None:
    """Not base64, or no whole number of words."""
    with pytest.raises(ValueError, match=told):
        check_marks({"marks": marks})
