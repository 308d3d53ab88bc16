"""`FlowDiffusion`: learns labelled flows, draws new ones."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from netdiffusion import _core
from netdiffusion._core import Error, FormatError
from netdiffusion.adapters import FILES, read_adapters
from netdiffusion.classes import MODEL_VERSION, check_class
from netdiffusion.control import HOLDS, Control, Value
from netdiffusion.files import written_whole
from netdiffusion.flows import FlowSet
from netdiffusion.repair import RepairOptions
from netdiffusion.sampling import Drawer, Progress, Settings

if TYPE_CHECKING:
    import pandas as pd

    from netdiffusion.payload import Payload
    from netdiffusion.stream import StreamReport
    from netdiffusion.training.config import TrainingConfig
    from netdiffusion.training.loop import Trainer

__all__ = ["FlowDiffusion"]

MODEL_LAYOUT = "netdiffusion-canonical"
MODEL_FILES = ("config.json", "layout.json", "classes.json", "model.safetensors")
DEFAULT_MINUTES = 30.0
REPLAYED = 60  # flows that are drawn and replayed where none are given
REPLAYED_PACKETS = 40
SIGMA_RANGE = (80.0, 0.2)
SAMPLER = {
    "sigmas": np.geomspace(*SIGMA_RANGE, 10).round(6).tolist(),
    "temperature": 0.0,
    "renoise_rounds": 2,
    "renoise_sigma": 1.0,
}


class FlowDiffusion:
    """A diffusion model of packet rows, a class at a time.

    Training needs ``pip install "netdiffusion[train]"``; sampling runs in C, on a
    GPU through Vulkan or on the CPU.

    Parameters
    ----------
    width, blocks, heads, mlp : int
        Size of the transformer: token width, blocks, attention heads, MLP width.
    max_packets : int
        Packets of a flow that are learned and drawn.
    min_packets : int
        Shorter flows are left out of the training.
    tokens : int
        Packets in a training batch.
    learning_rate : float
        Highest learning rate.
    dropout : float
        Share of each block's result that is dropped in training.
    balance : float
        Classes of n flows are learned in proportion to n ** balance.
    config : TrainingConfig, optional
        All settings; then the parameters above are not looked at.

    Attributes
    ----------
    classes_ : dict
        Training flows of each class, by name.
    history_ : dict of list
        ``step``, ``seconds``, ``loss`` (nats a cell, weighted) and
        ``learning_rate`` while training; empty for a model that was loaded.
    config_ : dict
        ``config.json`` of the model.

    Examples
    --------
    >>> import netdiffusion as nd
    >>> model = nd.FlowDiffusion.from_pretrained()
    >>> flows = model.sample({"lab_dns": 3}, seed=1, device="cpu")
    >>> len(flows), set(flows.labels.tolist())
    (3, {'lab_dns'})
    """

    def __init__(
        self,
        *,
        width: int = 256,
        blocks: int = 5,
        heads: int = 4,
        mlp: int = 768,
        max_packets: int = 128,
        min_packets: int = 1,
        tokens: int = 2048,
        learning_rate: float = 2e-3,
        dropout: float = 0.0,
        balance: float = 0.6,
        config: TrainingConfig | None = None,
    ) -> None:
        self.width = width
        self.blocks = blocks
        self.heads = heads
        self.mlp = mlp
        self.max_packets = max_packets
        self.min_packets = min_packets
        self.tokens = tokens
        self.learning_rate = learning_rate
        self.dropout = dropout
        self.balance = balance
        self.config = config

    _NUMBERS = (
        "width",
        "blocks",
        "heads",
        "mlp",
        "max_packets",
        "min_packets",
        "tokens",
        "learning_rate",
        "dropout",
        "balance",
    )

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's parameters, as scikit-learn asks for."""
        return {name: getattr(self, name) for name in (*self._NUMBERS, "config")}

    def set_params(self, **params: Any) -> FlowDiffusion:
        """Set constructor parameters, as scikit-learn asks for.

        Raises
        ------
        ValueError
            A parameter that does not exist.
        """
        for name, value in params.items():
            if name not in self.get_params():
                raise ValueError(
                    f"FlowDiffusion has no parameter {name!r}; there are "
                    f"{', '.join(self.get_params())}."
                )
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        if not hasattr(self, "classes_"):
            sizes = ", ".join(f"{n}={getattr(self, n)}" for n in self._NUMBERS[:4])
            return f"FlowDiffusion({sizes})"
        network = self.config_["network"]
        return (
            f"FlowDiffusion({len(self.classes_)} classes, "
            f"{network['columns']} columns, width={network['width']}, "
            f"blocks={network['blocks']})"
        )

    def _settings(self) -> TrainingConfig:
        """Return the training settings."""
        if self.config is not None:
            return self.config
        from netdiffusion.training.config import TrainingConfig

        return TrainingConfig(**{name: getattr(self, name) for name in self._NUMBERS})

    def fit(
        self,
        flows: FlowSet,
        *,
        minutes: float | None = None,
        steps: int | None = None,
        seed: int = 0,
        checkpoint: str | os.PathLike[str] | None = None,
        resume: bool = False,
        start_from: str | os.PathLike[str] | None = None,
        progress: bool | None = None,
    ) -> FlowDiffusion:
        """Train on labelled flows.

        Parameters
        ----------
        flows : FlowSet
            Labelled flows; layouts other than ``netdiffusion-1088`` are converted.
        minutes : float, optional
            Time budget. Default 30 if `steps` is not given either.
        steps : int, optional
            Step budget; trained by steps alone, the same seed gives the same
            model on one machine.
        seed : int, default 0
            Of weights, batches and noise.
        checkpoint : path-like, optional
            A file that the state is written to every few minutes and at the end.
        resume : bool, default False
            Go on from `checkpoint`.
        start_from : path-like, optional
            Directory of a model of the same size, to start from its weights.
        progress : bool, optional
            Show a progress bar. Default: if stderr is a terminal.

        Returns
        -------
        FlowDiffusion
            Itself.

        Raises
        ------
        Error
            PyTorch is not installed; no flow is long enough; `checkpoint` is not
            of this run.

        Notes
        -----
        Under ``torchrun`` all processes train together; each ends with the model.
        """
        trainer = _trainer(flows, self._settings(), seed)
        path = None if checkpoint is None else Path(checkpoint)
        if resume:
            if path is None or not path.exists():
                raise Error(f"fit: no checkpoint {path} to resume from.")
            trainer.load(path)
        elif start_from is not None:
            from netdiffusion.training.export import read_pretrained

            trainer.adopt(read_pretrained(Path(start_from)))
        if minutes is None and steps is None:
            minutes = DEFAULT_MINUTES
        trainer.run(minutes=minutes, steps=steps, checkpoint=path, progress=progress)
        self._take(trainer)
        return self

    def adapt(
        self,
        flows: FlowSet,
        *,
        name: str,
        minutes: float | None = None,
        steps: int | None = None,
        rank: int = 8,
        seed: int = 0,
    ) -> FlowDiffusion:
        """Learn one more class from a few flows, 10 or so, as a low-rank adapter.

        The base's weights stay as they are: its classes are drawn as before, and
        adapters stand beside each other. What others look like is replayed while
        the class is learned.

        Parameters
        ----------
        flows : FlowSet
            Flows of the class: those labelled `name`, or all that have no label or
            one that the model does not know. Flows of classes that it knows are
            replayed; without any it draws some itself.
        name : str
            The new class.
        minutes : float, optional
            Time budget. Default 4; mostly less is needed.
        steps : int, optional
            Training steps. Default: as many as suit a fifth of the flows, held out
            in a first run.
        rank : int, default 8
            Of the adapter's matrices.
        seed : int, default 0
            Of weights, batches and noise.

        Returns
        -------
        FlowDiffusion
            Itself, with the class in `classes_`.

        Raises
        ------
        Error
            PyTorch is not installed; no flow of the class; a class that is there
            already; flows that the base cannot express.
        """
        self._check_fitted()
        _check_training("adapt")
        from netdiffusion.training.adapt import train_adapter

        if name in self.classes_ or not name or name in (".", ".."):
            raise Error(
                f"adapt: the model has a class {name!r} already. Give another name."
            )
        new, replay = self._sorted_out(flows, name)
        owned = tempfile.TemporaryDirectory(prefix="netdiffusion-")
        directory = Path(owned.name) / "model"
        _copy_model(self._directory, directory)
        self.history_ = train_adapter(
            directory,
            directory / "adapters" / _file_name(name),
            name,
            new,
            replay,
            minutes=minutes,
            steps=steps,
            rank=rank,
            seed=seed,
        )
        self._read(directory)
        self._owned = owned
        return self

    @classmethod
    def adapt_directory(
        cls,
        directory: str | os.PathLike[str],
        flows: FlowSet,
        output: str | os.PathLike[str] | None = None,
        *,
        name: str,
        minutes: float | None = None,
        steps: int | None = None,
        rank: int = 8,
        seed: int = 0,
        overwrite: bool = False,
    ) -> None:
        """Adapt a model directory; what the CLI does.

        Parameters
        ----------
        directory : path-like
            The model.
        flows, name, minutes, steps, rank, seed
            As of `adapt`.
        output : path-like, optional
            Gets a copy of the model with the adapter. Default: the adapter is
            written into `directory`, as ``adapters/<name>``.
        overwrite : bool, default False
            Replace `output`, or an adapter of that name.

        Raises
        ------
        FileExistsError
            `output`, or the adapter, exists and `overwrite` is false.
        """
        target = None if output is None else Path(output)
        inside = Path(directory) / "adapters" / _file_name(name)
        if target is not None and target.exists() and not overwrite:
            raise FileExistsError(
                f"{target}: already exists. Use overwrite=True (--force) to replace "
                "it, or give another name."
            )
        if target is None and inside.exists():
            if not overwrite:
                raise FileExistsError(
                    f"{inside}: already exists. Use overwrite=True (--force) to train "
                    "it anew, or give another name."
                )
            shutil.rmtree(inside)
        model = cls.from_pretrained(directory)
        model.adapt(
            flows, name=name, minutes=minutes, steps=steps, rank=rank, seed=seed
        )
        if target is not None:
            model.save_pretrained(target, overwrite=overwrite)
            return
        inside.parent.mkdir(exist_ok=True)
        with written_whole(inside, overwrite=overwrite) as scratch:
            shutil.copytree(model._directory / "adapters" / inside.name, scratch)

    def _sorted_out(self, flows: FlowSet, name: str) -> tuple[FlowSet, FlowSet]:
        """Tell the flows of a new class from those of classes of the base."""
        base = {c["name"] for c in self._drawer.classes[: self._base_classes]}
        known = np.isin(flows.labels, sorted(base))
        mine = flows.labels == name
        if not mine.any():
            mine = ~known
        labels = np.unique(flows.labels[mine])
        if len(labels) != 1:
            raise Error(
                f"adapt: {len(labels)} labels that the model does not know; flows of "
                f"one class are wanted. Label them {name!r}, or select them."
            )
        if known.any():
            return flows.select(mine), flows.select(known)
        names = sorted(base)
        picked = np.random.default_rng(0).permutation(names)[:REPLAYED]
        each = -(-REPLAYED // len(picked))
        most = min(REPLAYED_PACKETS, int(self.config_["max_packets"]))
        drawn = self.sample(
            {str(n): each for n in picked}, seed=1, lengths=None, device="cpu"
        )
        return flows.select(mine), drawn.head(most)

    @property
    def _base_classes(self) -> int:
        return int(self.config_["network"]["classes"])

    def _take(self, trainer: Trainer) -> None:
        """Keep a trained network as a model directory of this object's own."""
        from netdiffusion.training.export import write_model

        owned = tempfile.TemporaryDirectory(prefix="netdiffusion-")
        directory = Path(owned.name) / "model"
        write_model(trainer, directory, SAMPLER)
        self._read(directory)
        self._owned = owned
        self.history_ = {k: list(v) for k, v in trainer.history.items()}

    def history_frame(self) -> pd.DataFrame:
        """Return `history_` as a pandas DataFrame."""
        import pandas as pd

        return pd.DataFrame(self.history_)

    @classmethod
    def train_directory(
        cls,
        flows: FlowSet,
        output: str | os.PathLike[str],
        *,
        config: str | os.PathLike[str] | None = None,
        minutes: float | None = None,
        seed: int = 0,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        """Train on flows and write a model directory; what the CLI does.

        Parameters
        ----------
        flows : FlowSet
            Labelled flows.
        output : path-like
            The model directory. A checkpoint is kept beside it, under the same
            name with ``.checkpoint``, until the run is over.
        config : path-like, optional
            TOML file of `TrainingConfig` settings.
        minutes : float, optional
            Time budget. Default 30.
        seed : int, default 0
            Of weights, batches and noise.
        resume : bool, default False
            Go on from the checkpoint.
        overwrite : bool, default False
            Replace a directory that exists.

        Raises
        ------
        FileExistsError
            `output` exists and `overwrite` is false.
        """
        target = Path(output)
        if target.exists() and not overwrite:
            raise FileExistsError(
                f"{target}: already exists. Use overwrite=True (--force) to replace "
                "it, or give another name."
            )
        from netdiffusion.training.config import TrainingConfig

        model = cls(config=TrainingConfig.from_toml(config) if config else None)
        checkpoint = target.with_name(f"{target.name}.checkpoint")
        model.fit(
            flows, minutes=minutes, seed=seed, checkpoint=checkpoint, resume=resume
        )
        if int(os.environ.get("RANK", "0")) == 0:
            model.save_pretrained(target, overwrite=overwrite)
            checkpoint.unlink(missing_ok=True)

    def save_pretrained(
        self, directory: str | os.PathLike[str], *, overwrite: bool = False
    ) -> None:
        """Write the model as a directory, whole or not at all.

        Parameters
        ----------
        directory : path-like
            Gets ``config.json``, ``layout.json``, ``classes.json``,
            ``model.safetensors`` and a model card ``README.md``.
        overwrite : bool, default False
            Replace what exists.

        Raises
        ------
        FileExistsError
            `directory` exists and `overwrite` is false.
        Error
            The model was not trained or loaded.
        """
        self._check_fitted()
        with written_whole(directory, overwrite=overwrite) as scratch:
            scratch.mkdir()
            _copy_model(self._directory, scratch)
            card = self._directory / "README.md"
            text = card.read_text("utf-8") if card.exists() else self._card()
            (scratch / "README.md").write_text(text, encoding="utf-8")

    def _card(self) -> str:
        """Return a model card with what is known of the training."""
        network = ", ".join(f"{k} {v}" for k, v in self.config_["network"].items())
        lines = [
            "# A netdiffusion model",
            "",
            f"Trained by netdiffusion.FlowDiffusion. Network: {network}. ",
            f"Flows are learned up to {self.config_['max_packets']} packets.",
            "",
        ]
        if self.history_.get("step"):
            steps, seconds = self.history_["step"][-1], self.history_["seconds"][-1]
            loss = self.history_["loss"][-1]
            lines += [f"{steps} steps in {seconds:.0f} s; last loss {loss:.4f}.", ""]
        lines += ["| class | training flows |", "| --- | --- |"]
        lines += [f"| {name} | {count} |" for name, count in self.classes_.items()]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_pretrained(
        cls, directory: str | os.PathLike[str] | None = None
    ) -> FlowDiffusion:
        """Load a model directory.

        Parameters
        ----------
        directory : path-like, optional
            Default: the base model of the package.

        Raises
        ------
        FormatError
            Not a model directory, of a newer version, or of another layout.
        """
        if directory is None:
            directory = Path(str(files("netdiffusion"))) / "models" / "base"
        model = cls()
        model._read(Path(directory))
        network = model.config_["network"]
        for name in ("width", "blocks", "heads", "mlp"):
            setattr(model, name, network[name])
        model.max_packets = model.config_["max_packets"]
        model.history_ = {}
        return model

    def _read(self, directory: Path) -> None:
        """Read and check the JSON files of a model directory."""
        self.config_ = _read_json(directory, "config.json")
        _check_config(directory, self.config_)
        layout = _read_json(directory, "layout.json")
        known = _core.layouts()[MODEL_LAYOUT]
        for name, found in (
            ("config.json", self.config_.get("layout_hash")),
            ("layout.json", layout.get("hash")),
        ):
            if found != known["hash"]:
                raise FormatError(
                    f"{directory / name}: made for a layout with hash {found}, but "
                    f"{MODEL_LAYOUT} of this version has {known['hash']}. Train the "
                    "model anew, or use the version of netdiffusion that made it."
                )
        column = np.asarray(layout["column_of_cell"], np.int64)
        constant = np.asarray(layout["constant"], np.int8)
        wrong = column.shape != (known["cells"],) or constant.shape != column.shape
        if wrong or column.max() != self.config_["network"]["columns"] - 1:
            raise FormatError(
                f"{directory / 'layout.json'}: its columns do not fit config.json."
            )
        classes = _read_json(directory, "classes.json")
        if len(classes) != self.config_["network"]["classes"]:
            raise FormatError(
                f"{directory / 'classes.json'}: {len(classes)} classes, but "
                f"config.json says {self.config_['network']['classes']}."
            )
        _check_classes(directory, classes)
        adapters = read_adapters(directory, [c["name"] for c in classes])
        classes += [adapter.classes[0] for adapter in adapters]
        self.classes_ = {c["name"]: int(c["flows"]) for c in classes}
        self._directory = directory
        self._drawer = Drawer(
            directory, self.config_, classes, column, constant, adapters
        )

    def _check_fitted(self) -> None:
        if not hasattr(self, "classes_"):
            raise Error(
                "FlowDiffusion: not trained yet. Call fit(flows), or start from "
                "FlowDiffusion.from_pretrained()."
            )

    def __getstate__(self) -> dict[str, Any]:
        """Carry a model directory of this object's own along when pickled."""
        state = {k: v for k, v in self.__dict__.items() if k != "_owned"}
        if "_owned" in self.__dict__:
            state["_files"] = {
                n: (self._directory / n).read_bytes()
                for n in _model_files(self._directory)
            }
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        kept: dict[str, bytes] = state.pop("_files", {})
        self.__dict__.update(state)
        if kept:
            self._owned = tempfile.TemporaryDirectory(prefix="netdiffusion-")
            self._directory = self._drawer.directory = Path(self._owned.name)
            for name, content in kept.items():
                path = self._directory / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self._drawer.adapters = read_adapters(self._directory, [])

    def sample(
        self,
        counts: Mapping[str, int],
        *,
        seed: int = 0,
        first: int | Mapping[str, int] = 0,
        steps: int | None = None,
        device: str = "auto",
        lengths: int | Mapping[str, int] | None = None,
        control: Mapping[str, Value] | FlowSet | Control | None = None,
        hold: Sequence[str] = HOLDS,
        repair: bool = True,
        options: RepairOptions | None = None,
        temperature: float | None = None,
        sampler: str | None = None,
        guidance: float = 1.0,
        guidance_interval: tuple[float, float] = (0.0, np.inf),
        batch_size: int | Literal["auto"] = "auto",
        threads: int = 0,
        progress: Progress | None = None,
    ) -> FlowSet:
        """Draw flows.

        Parameters
        ----------
        counts : mapping of str to int
            How many flows of which class.
        seed : int, default 0
            A flow follows from the seed, its class and its number in the class:
            asking for other classes or more flows does not change it. A copy of a
            training flow is drawn again, up to three times.
        first : int or mapping of str to int, default 0
            Number in its class of the first flow, so that one job can be drawn in
            parts: 5 flows from 0 on and 5 from 5 on are the 10 from 0 on.
        steps : int, optional
            Denoising steps. Default: the model's.
        device : str, default "auto"
            ``"auto"``, ``"cpu"``, ``"vulkan"`` or ``"vulkan:N"``; see
            `netdiffusion.devices`.
        lengths : int or mapping of str to int, optional
            Packets of each flow, for all classes or by class. Default: drawn as in
            the training flows of the class.
        control : mapping, FlowSet or Control, optional
            What every flow holds: fields by name, such as ``{"transport": "udp",
            "server_port": 443, "ttl": 64}``, or flows whose outline is taken over;
            see `Control`. Drawn flows have every held cell; ``meta["control"]``
            tells what repair had to change because the protocols ask for it.
        hold : sequence of str
            What is held of flows given as `control`: of ``"length"``,
            ``"direction"``, ``"time"`` and ``"headers"``. Default: all.
        repair : bool, default True
            Make the flows obey the protocols. False gives the rows as drawn, with
            ports, sequence numbers and checksums zero.
        options : RepairOptions, optional
            What repair may choose: address pools, start time and more.
        temperature : float, optional
            Of the last draw; 0 takes the likeliest value. Default: the model's.
        sampler : {"dpm++2m", "euler", "ancestral"}, optional
            How one noise level leads to the next. Default: the model's.
        guidance : float, default 1.0
            Above 1 makes flows more typical of their class and less varied.
        guidance_interval : tuple of float, default (0, inf)
            Noise levels that guidance acts at; (0.6, 3.2) keeps more variety.
        batch_size : int or "auto", default "auto"
            Packets of a batch, a budget: flows are packed into it. It does not
            change what is drawn. Where memory does not suffice it is halved.
        threads : int, default 0
            Of the CPU device; 0 is all cores.
        progress : callable, optional
            Is called with flows done and flows in all.

        Returns
        -------
        FlowSet
            Layout ``netdiffusion-1088``, classes in the order of `counts`.
            ``meta["repair"]`` is the report of `netdiffusion.repair`.

        Raises
        ------
        Error
            A class that the model does not know, or a model without training.
        ValueError
            A control that does not exist, contradicts itself, or that the model's
            columns cannot express.
        DeviceError
            The device does not exist.
        """
        self._check_fitted()
        settings = Settings(
            seed=seed,
            steps=steps,
            device=device,
            temperature=temperature,
            sampler=sampler,
            guidance=guidance,
            guidance_interval=guidance_interval,
            batch_size=batch_size,
            threads=threads,
            lengths=lengths,
            control=Control.of(control, hold),
        )
        part = self._drawer.part(counts, first)
        return self._drawer.flows(part, settings, repair, options, progress=progress)

    def sample_to(
        self,
        path: str | os.PathLike[str],
        counts: Mapping[str, int],
        *,
        seed: int = 0,
        first: int | Mapping[str, int] = 0,
        steps: int | None = None,
        device: str = "auto",
        lengths: int | Mapping[str, int] | None = None,
        control: Mapping[str, Value] | FlowSet | Control | None = None,
        hold: Sequence[str] = HOLDS,
        options: RepairOptions | None = None,
        temperature: float | None = None,
        sampler: str | None = None,
        guidance: float = 1.0,
        guidance_interval: tuple[float, float] = (0.0, np.inf),
        batch_size: int | Literal["auto"] = "auto",
        threads: int = 0,
        payload: Payload = "zeros",
        check: bool = False,
        overwrite: bool = False,
        progress: bool | None = None,
    ) -> StreamReport:
        """Draw any number of flows into a file, in constant memory.

        Parameters
        ----------
        path : path-like
            ``.pcap``, ``.pcapng`` or ``.npz``; what `sample` would give, written by
            `netdiffusion.write_capture` or `FlowSet.save`.
        counts, seed, first, steps, device, lengths, control, hold, options
            As in `sample`; so are the other parameters of drawing.
        payload : {"zeros", "random", "protocol"}, default "zeros"
            Of a capture, as in `netdiffusion.write_capture`.
        check : bool, default False
            Read what is written back, and validate the flows; the command line
            always does.
        overwrite : bool, default False
            Whether a file that exists is replaced.
        progress : bool, optional
            Show flows per second and the time left. Default: if stderr is a
            terminal.

        Returns
        -------
        StreamReport
            Flows, packets, and the reports of repair and control.

        Raises
        ------
        SamplingInterrupted
            Ctrl-C: the file holds the flows that were done, and the message says
            how many; a second Ctrl-C leaves no file.
        FileExistsError
            `path` exists and `overwrite` is false.
        Error, ValueError, DeviceError
            As `sample`.
        """
        from netdiffusion.stream import sample_to_file

        self._check_fitted()
        settings = Settings(
            seed=seed,
            steps=steps,
            device=device,
            temperature=temperature,
            sampler=sampler,
            guidance=guidance,
            guidance_interval=guidance_interval,
            batch_size=batch_size,
            threads=threads,
            lengths=lengths,
            control=Control.of(control, hold),
        )
        return sample_to_file(
            self._drawer,
            self._drawer.part(counts, first),
            settings,
            Path(path),
            options=options,
            payload=payload,
            check=check,
            overwrite=overwrite,
            progress=progress,
        )

    def sample_canonical(
        self,
        counts: Mapping[str, int],
        *,
        seed: int = 0,
        first: int | Mapping[str, int] = 0,
        steps: int | None = None,
        device: str = "auto",
        lengths: int | Mapping[str, int] | None = None,
        control: Mapping[str, Value] | FlowSet | Control | None = None,
        hold: Sequence[str] = HOLDS,
        temperature: float | None = None,
        sampler: str | None = None,
        guidance: float = 1.0,
        guidance_interval: tuple[float, float] = (0.0, np.inf),
        batch_size: int | Literal["auto"] = "auto",
        threads: int = 0,
        progress: Progress | None = None,
    ) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int64], npt.NDArray[np.str_]]:
        """Draw flows as canonical rows, before repair; parameters as `sample`.

        Returns
        -------
        rows : ndarray of int8, shape (P, 1104)
            Layout ``netdiffusion-canonical``.
        offsets : ndarray of int64, shape (F + 1,)
            Where each flow starts.
        labels : ndarray of str, shape (F,)
            Its class.
        """
        self._check_fitted()
        settings = Settings(
            seed=seed,
            steps=steps,
            device=device,
            temperature=temperature,
            sampler=sampler,
            guidance=guidance,
            guidance_interval=guidance_interval,
            batch_size=batch_size,
            threads=threads,
            lengths=lengths,
            control=Control.of(control, hold),
        )
        part = self._drawer.part(counts, first)
        drawn = self._drawer.rows(part, settings, progress=progress)
        return drawn.rows, drawn.offsets, part.labels()


def _trainer(flows: FlowSet, config: TrainingConfig, seed: int) -> Trainer:
    """Return a trainer, or say that PyTorch is missing."""
    _check_training("fit")
    from netdiffusion.training.data import TrainingSet
    from netdiffusion.training.loop import Trainer

    return Trainer(TrainingSet(flows, config), config, seed)


def _check_training(who: str) -> None:
    """Raise Error unless the packages that training needs are there."""
    missing = [n for n in ("torch", "safetensors") if not importlib.util.find_spec(n)]
    if missing:
        raise Error(
            f"{who}: training needs {' and '.join(missing)}. Run "
            'pip install "netdiffusion[train]". Sampling works without.'
        )


def _file_name(name: str) -> str:
    """Return a class's name as a directory name."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


def _model_files(directory: Path) -> list[str]:
    """Return the files of a model directory, adapters' too, relative to it."""
    found = sorted(directory.glob("adapters/*/*"))
    adapters = [f.relative_to(directory).as_posix() for f in found if f.name in FILES]
    return [*MODEL_FILES, *adapters]


def _copy_model(source: Path, target: Path) -> None:
    """Copy the files of a model directory."""
    for name in _model_files(source):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)


def _read_json(directory: Path, name: str) -> Any:
    """Read a JSON file of a model directory."""
    path = directory / name
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FormatError(
            f"{directory}: not a model directory, it has no {name}. "
            "`netdiffusion train` makes one."
        ) from None
    except (NotADirectoryError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise FormatError(f"{path}: not a model's {name}: {error}.") from None


def _check_config(directory: Path, config: Any) -> None:
    """Raise FormatError unless a config.json is one that this version reads."""
    path = directory / "config.json"
    if not isinstance(config, dict) or config.get("format") != "netdiffusion-model":
        raise FormatError(f"{path}: not of a netdiffusion model.")
    if config.get("version") != MODEL_VERSION:
        raise FormatError(
            f"{path}: version {config.get('version')} of the model format; this "
            f"netdiffusion reads version {MODEL_VERSION}. Train the model again, or "
            "use the netdiffusion that made it."
        )
    lacking = {"layout", "layout_hash", "network", "sampler", "max_packets"} - set(
        config
    )
    if lacking:
        raise FormatError(f"{path}: {', '.join(sorted(lacking))} missing.")


def _check_classes(directory: Path, classes: list[Any]) -> None:
    """Raise FormatError unless flows can be drawn by the entries of a classes.json."""
    for number, entry in enumerate(classes):
        try:
            check_class(entry)
        except (KeyError, TypeError, ValueError, AttributeError) as why:
            raise FormatError(
                f"{directory / 'classes.json'}: entry {number} is no class: {why!r}."
            ) from None
