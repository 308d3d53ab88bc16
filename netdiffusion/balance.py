"""Fill the small classes of a data set with flows that a model draws."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from netdiffusion._core import Error
from netdiffusion.evaluate.features import flow_bits, flow_statistics
from netdiffusion.extras import require
from netdiffusion.flows import FlowSet
from netdiffusion.repair import RepairOptions

if TYPE_CHECKING:
    from netdiffusion.model import FlowDiffusion

Model: TypeAlias = "FlowDiffusion | str | os.PathLike[str] | None"
Representation: TypeAlias = (
    Literal["bits", "statistics"] | Callable[[FlowSet], npt.ArrayLike]
)


def balance_flows(
    flows: FlowSet,
    *,
    model: Model = None,
    strategy: Literal["auto"] | int | Mapping[str, int] = "auto",
    random_state: int = 0,
    steps: int | None = None,
    device: str = "auto",
) -> FlowSet:
    """Add sampled, repaired flows to the classes that have too few.

    Parameters
    ----------
    flows : FlowSet
        Real flows. They come first in the result, unchanged.
    model : FlowDiffusion or path-like, optional
        A fitted model or the directory of one. Default: the base model that ships
        with the package.
    strategy : {"auto"}, int or mapping of str to int, default "auto"
        "auto": all classes get as many flows as the largest has. A number: at
        least that many. A mapping: flows wanted of the classes it names, with
        those that are there counted.
    random_state : int, default 0
        Seed of the draws.
    steps : int, optional
        Denoising steps; default: the model's.
    device : str, default "auto"
        As for `FlowDiffusion.sample`.

    Returns
    -------
    FlowSet
        ``synthetic`` is True for the flows that were added, and
        ``meta["balanced"]`` says how many of each class were.

    Raises
    ------
    Error
        The model does not know a class that needs flows.
    ValueError
        A mapping asks for fewer flows than there are.
    """
    missing = _missing(flows.counts, strategy)
    if not missing:
        return flows
    drawn = draw_flows(
        missing,
        model,
        who="balance_flows",
        seed=random_state,
        steps=steps,
        device=device,
    )
    out = FlowSet.concatenate([flows, drawn.to_layout(flows.layout)])
    out.meta = {**flows.meta, "balanced": missing}
    return out


def _missing(counts: Mapping[str, int], strategy: Any) -> dict[str, int]:
    """Return how many flows each class lacks."""
    if isinstance(strategy, Mapping):
        wanted = {str(name): int(count) for name, count in strategy.items()}
        for name, count in wanted.items():
            if count < counts.get(name, 0):
                raise ValueError(
                    f"balance_flows: strategy wants {count} flows of {name!r}, but "
                    f"there are {counts[name]} already; none is taken away."
                )
    elif strategy == "auto":
        wanted = dict.fromkeys(counts, max(counts.values(), default=0))
    else:
        wanted = {name: max(count, int(strategy)) for name, count in counts.items()}
    lacks = {name: wanted[name] - counts.get(name, 0) for name in wanted}
    return {name: count for name, count in lacks.items() if count > 0}


def draw_flows(
    counts: Mapping[str, int],
    model: Model,
    *,
    who: str,
    seed: int,
    steps: int | None = None,
    device: str = "auto",
) -> FlowSet:
    """Sample flows; one clear error for all classes the model does not know.

    Parameters
    ----------
    counts : mapping of str to int
        Flows wanted of each class.
    model : FlowDiffusion or path-like, optional
        As for `balance_flows`.
    who : str
        The caller, for the message.
    seed, steps, device
        As for `FlowDiffusion.sample`.

    Raises
    ------
    Error
        The model does not know some of the classes.
    """
    loaded = _load(model)
    known = set(loaded.classes_)
    unknown = sorted(set(counts) - known)
    if unknown:
        some = ", ".join(sorted(known)[:8])
        raise Error(
            f"{who}: the model knows no class {', '.join(map(repr, unknown))}; it "
            f"knows {len(known)}: {some}, ... Fit one on your flows "
            "(FlowDiffusion().fit(flows), or `netdiffusion train`) and give it as "
            "model, or leave these classes out with a mapping as strategy."
        )
    return loaded.sample(
        dict(counts),
        seed=seed,
        steps=steps,
        device=device,
        options=RepairOptions(events="quiet"),
    )


def _load(model: Model) -> FlowDiffusion:
    """Return the model itself, from a directory, or the base model."""
    if model is None or isinstance(model, (str, os.PathLike)):
        from netdiffusion.model import FlowDiffusion

        return FlowDiffusion.from_pretrained(model)
    return model


class _FlowOverSampling:
    """Over-sample with flows that a diffusion model draws.

    An over-sampler of imbalanced-learn: classes are filled with new flows,
    sampled, repaired and turned into the same features that `X` has, so it can
    stand in an ``imblearn.pipeline.Pipeline`` before any classifier.

    Parameters
    ----------
    sampling_strategy : float, str, dict or callable, default "auto"
        As for every over-sampler of imbalanced-learn; "auto" fills all classes
        up to the largest.
    random_state : int, RandomState instance or None, default None
        Seed of the draws.
    model : FlowDiffusion or path-like, optional
        A fitted model or the directory of one. Default: the base model that ships
        with the package.
    representation : {"bits", "statistics"} or callable, default "bits"
        What `X` is. "bits": ``flows.padded(n)`` as it is or as lines, see
        `netdiffusion.evaluate.flow_bits`. "statistics":
        `netdiffusion.evaluate.flow_statistics`. A callable takes a `FlowSet` and
        returns one line a flow, or an array of any shape with the flows first.
    n_packets : int, optional
        Packets of a flow in `X`. Default: as many as its width says.
    steps : int, optional
        Denoising steps; default: the model's.
    device : str, default "auto"
        As for `FlowDiffusion.sample`.

    Attributes
    ----------
    sampling_strategy_ : dict
        Class to number of flows that were drawn.
    flows_ : FlowSet
        The flows that were drawn, in the order of the lines they became.
    n_features_in_ : int
        Features that `X` has.

    See Also
    --------
    netdiffusion.balance_flows : The same for a `FlowSet`.

    Examples
    --------
    >>> import netdiffusion as nd
    >>> flows = nd.load_lab_flows("train").select(["lab_ntp", "lab_modbus"])
    >>> over = nd.FlowOverSampler(sampling_strategy={"lab_modbus": 12}, steps=4,
    ...                           random_state=0, device="cpu")
    >>> X, y = over.fit_resample(flows.padded(4), flows.labels)
    >>> X.shape[1:], (y == "lab_modbus").sum()
    ((4, 1088), np.int64(12))
    """

    sampling_strategy_: dict[Any, int]

    def __init__(
        self,
        *,
        sampling_strategy: Any = "auto",
        random_state: Any = None,
        model: Model = None,
        representation: Representation = "bits",
        n_packets: int | None = None,
        steps: int | None = None,
        device: str = "auto",
    ) -> None:
        self.sampling_strategy = sampling_strategy
        self.random_state = random_state
        self.model = model
        self.representation = representation
        self.n_packets = n_packets
        self.steps = steps
        self.device = device

    def __sklearn_clone__(self) -> Any:
        """Clone, but keep the model: a clone of it would not be fitted."""
        parent: Any = super()
        other = parent.__sklearn_clone__()
        other.model = self.model
        return other

    def _check_X_y(
        self, X: Any, y: Any, accept_sparse: Any = None
    ) -> tuple[Any, Any, bool]:
        """Check lengths and values; arrays of more than two axes pass."""
        who = "FlowOverSampler"
        targets = require("imblearn.utils", extra="ml", who=who)
        checks = require("sklearn.utils", extra="ml", who=who)
        y, one_vs_all = targets.check_target_type(y, indicate_one_vs_all=True)
        X, y = checks.check_X_y(X, y, dtype=None, allow_nd=True)
        self.n_features_in_ = int(np.prod(X.shape[1:]))
        return X, y, one_vs_all

    def _fit_resample(self, X: Any, y: Any, **params: Any) -> tuple[Any, Any]:
        """Draw the flows that `sampling_strategy_` asks for and append them."""
        validation = require("sklearn.utils", extra="ml", who="FlowOverSampler")
        state = validation.check_random_state(self.random_state)
        wanted = {label: n for label, n in self.sampling_strategy_.items() if n > 0}
        if not wanted:
            self.flows_ = FlowSet.empty()
            return X.copy(), y.copy()
        self.flows_ = draw_flows(
            {str(label): n for label, n in wanted.items()},
            self.model,
            who="FlowOverSampler",
            seed=int(state.randint(2**31 - 1)),
            steps=self.steps,
            device=self.device,
        )
        lines = self._lines(self.flows_, X.shape[1:]).astype(X.dtype, copy=False)
        spelling = {str(label): label for label in wanted}
        labels = [spelling[name] for name in self.flows_.labels.tolist()]
        return np.concatenate([X, lines]), np.concatenate(
            [y, np.asarray(labels, y.dtype)]
        )

    def _lines(self, flows: FlowSet, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """Turn flows into what `X` holds, or say why that is not possible."""
        width = int(np.prod(shape))
        if callable(self.representation):
            out = np.asarray(self.representation(flows))
        elif self.representation == "bits":
            n_packets = self.n_packets or max(width // flows.rows.shape[1], 1)
            out = flow_bits(flows, n_packets)
        elif self.representation == "statistics":
            fixed = flow_statistics(flows.select([]), 0).shape[1]
            n_packets = self.n_packets or max((width - fixed) // 2, 0)
            out = flow_statistics(flows, n_packets)
        else:
            raise ValueError(
                f"FlowOverSampler: representation {self.representation!r} is neither "
                "'bits' nor 'statistics' nor callable."
            )
        if int(np.prod(out.shape[1:])) != width:
            raise ValueError(
                f"FlowOverSampler: X has {width} features a flow, but representation "
                f"{self.representation!r} makes {int(np.prod(out.shape[1:]))}. Give X "
                "made the same way, such as flows.padded(8), or a callable."
            )
        return out.reshape(len(flows), *shape)


def _over_sampler() -> type:
    """Make the class on imbalanced-learn's, which is imported here first."""
    base = require("imblearn.over_sampling.base", extra="ml", who="FlowOverSampler")
    constraints = {
        **base.BaseOverSampler._parameter_constraints,
        "model": "no_validation",
        "representation": "no_validation",
        "n_packets": "no_validation",
        "steps": "no_validation",
        "device": [str],
    }
    body = {
        "__doc__": _FlowOverSampling.__doc__,
        "__module__": __name__,
        "_parameter_constraints": constraints,
    }
    return type("FlowOverSampler", (_FlowOverSampling, base.BaseOverSampler), body)


if TYPE_CHECKING:

    class FlowOverSampler(_FlowOverSampling):
        """`_FlowOverSampling` on imbalanced-learn's base class."""

        def fit_resample(self, X: Any, y: Any, **params: Any) -> tuple[Any, Any]:
            """Return `X` and `y` with the flows drawn appended."""

        def get_params(self, deep: bool = True) -> dict[str, Any]:
            """Return the parameters by name."""

        def set_params(self, **params: Any) -> FlowOverSampler:
            """Set parameters by name."""


def __getattr__(name: str) -> Any:
    """Make `FlowOverSampler` when it is first asked for: imblearn loads slowly."""
    if name != "FlowOverSampler":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = _over_sampler()
    return globals()[name]


def __dir__() -> Sequence[str]:
    return sorted([*globals(), "FlowOverSampler"])
