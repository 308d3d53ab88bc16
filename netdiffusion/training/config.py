"""Settings of a training run."""

from __future__ import annotations

import dataclasses
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netdiffusion._core import Error

__all__ = ["TrainingConfig"]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Settings of a training run; the keys of a ``.toml`` file.

    Attributes
    ----------
    width, blocks, heads, mlp : int
        Size of the network: width of a token, transformer blocks, attention
        heads, width inside the MLP.
    max_packets : int
        Packets of a flow that are learned and later drawn.
    min_packets : int
        Shorter flows are left out.
    tokens : int
        Packets in a batch, of each process.
    learning_rate : float
        Highest rate, after `warm_up` steps; it then falls to 0 (cosine).
    warm_up : int
        Steps over which the rate rises.
    dropout : float
        Share of each block's result that is dropped.
    balance : float
        A class of n flows is drawn in proportion to n ** balance: 1 is as
        captured, 0 is every class alike.
    length_balance : float
        Flows of P packets are drawn in proportion to P ** -length_balance; their
        length is a condition, so this only spreads the effort.
    no_class : float
        Share of flows whose class is hidden, so guidance can be used.
    self_condition : float
        Share of steps in which the network sees its own previous estimate.
    reveal : float
        Share of steps in which cells are given to the network besides profiles, so
        that flows can be drawn around held cells; 0 makes a network without this
        input, and without profiles.
    noise_mean, noise_spread : float
        Mean and standard deviation of ln(sigma).
    high_noise : float
        Share of flows whose sigma is log-uniform in `high_noise_range` instead,
        where choices are made that all packets of a flow share.
    high_noise_range : tuple of float
        Lowest and highest such sigma.
    column_power : float
        Columns are weighed by (entropy + 0.05) ** -column_power in the loss.
    ema : float
        Width of the average of the weights, as a share of the run (Karras et al.,
        2024, power function averages).
    precision : {"auto", "float32", "bfloat16"}
        Of matrix products; auto is bfloat16 where the CPU has instructions for it.
    """

    width: int = 256
    blocks: int = 5
    heads: int = 4
    mlp: int = 768
    max_packets: int = 128
    min_packets: int = 1
    tokens: int = 2048
    learning_rate: float = 2e-3
    warm_up: int = 100
    dropout: float = 0.0
    balance: float = 0.6
    length_balance: float = 0.4
    no_class: float = 0.1
    self_condition: float = 0.5
    reveal: float = 0.5
    noise_mean: float = 0.5
    noise_spread: float = 1.4
    high_noise: float = 0.12
    high_noise_range: tuple[float, float] = (5.0, 160.0)
    column_power: float = 0.5
    ema: float = 0.05
    precision: str = "auto"

    def __post_init__(self) -> None:
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(
                "TrainingConfig: precision is auto, float32 or bfloat16, not "
                f"{self.precision!r}."
            )
        for name in ("width", "blocks", "heads", "mlp", "max_packets", "tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"TrainingConfig: {name} must be at least 1.")
        if not 0 < self.ema < 0.28:
            raise ValueError("TrainingConfig: ema must be above 0 and below 0.28.")

    @classmethod
    def from_dict(cls, values: dict[str, Any], *, where: str) -> TrainingConfig:
        """Return the settings in a dict; unknown names are an error.

        Parameters
        ----------
        values : dict
            Settings by name; the others keep their defaults.
        where : str
            Named in errors, usually the path.
        """
        kinds: dict[str, type] = {
            f.name: type(f.default) for f in dataclasses.fields(cls)
        }
        unknown = sorted(set(values) - set(kinds))
        if unknown:
            raise Error(
                f"{where}: no setting is named {unknown[0]!r}; there are "
                f"{', '.join(kinds)}."
            )
        for name, value in values.items():
            accepted = {float: (int, float), tuple: (list, tuple)}.get(kinds[name])
            if not isinstance(value, accepted or kinds[name]):
                wanted = kinds[name].__name__
                raise Error(f"{where}: {name} must be {wanted}, not {value!r}.")
        made: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**made)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> TrainingConfig:
        """Return the settings in a ``.toml`` file.

        Raises
        ------
        Error
            Not TOML, or a setting that does not exist or has another type; or
            Python 3.10 without the package tomli.
        """
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            try:
                import tomli as tomllib  # type: ignore[import-not-found]
            except ImportError:
                raise Error(
                    f"{path}: reading TOML on Python 3.10 needs tomli. "
                    "Run pip install tomli, or use Python 3.11."
                ) from None
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise Error(f"{path}: not TOML: {error}.") from None
        return cls.from_dict(values, where=os.fspath(path))

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return dataclasses.asdict(self)
