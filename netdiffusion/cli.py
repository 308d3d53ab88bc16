"""The command ``netdiffusion``: data on stdout, messages on stderr."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
import numpy as np

import netdiffusion as nd
from netdiffusion.captures import SUFFIXES, CaptureWarning, find_captures
from netdiffusion.files import written_whole
from netdiffusion.payload import Payload, PayloadReport
from netdiffusion.repair import Events
from netdiffusion.tools import TOOLS
from netdiffusion.validate import Per

EXIT_FAILURE, EXIT_USAGE, EXIT_UNREADABLE = 1, 2, 3
EXIT_VIOLATION, EXIT_DEVICE, EXIT_INTERRUPTED = 4, 5, 130

_F = TypeVar("_F", bound=Callable[..., Any])


class Commands(click.Group):
    """A group whose commands end with one line and an exit code for an error."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command and turn errors into messages."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:
            raise  # click ends quietly: the reader, such as head, has enough
        except KeyboardInterrupt as why:
            click.echo(str(why) or "interrupted", err=True)
            ctx.exit(EXIT_INTERRUPTED)
        except Exception as why:
            if ctx.params.get("verbose"):
                raise
            click.echo(f"{type(why).__name__}: {_text(why)}", err=True)
            ctx.exit(_exit_code(why))


def _text(why: Exception) -> str:
    """Return an error's message; KeyError would put it in quotes."""
    if isinstance(why, OSError) and why.filename is not None:
        return f"{why.filename}: {why.strerror}."
    return str(why.args[0]) if isinstance(why, KeyError) and why.args else str(why)


def _exit_code(why: Exception) -> int:
    """Return the exit code of an error."""
    if isinstance(why, nd.DeviceError):
        return EXIT_DEVICE
    if isinstance(why, (nd.FormatError, FileNotFoundError, PermissionError)):
        return EXIT_UNREADABLE
    if isinstance(why, KeyError):
        return EXIT_USAGE
    return EXIT_FAILURE


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(nd.__version__, prog_name="netdiffusion")
@click.option("-v", "--verbose", is_flag=True, help="Tell more; show tracebacks.")
@click.option("-q", "--quiet", is_flag=True, help="No messages but errors.")
def main(verbose: bool, quiet: bool) -> None:
    """Make more of the network traffic you have too little of.

    Captures in, captures out: encode, train, sample, repair, validate,
    evaluate, balance.
    """
    level = logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO
    logging.basicConfig(
        level=level, stream=sys.stderr, format="%(message)s", force=True
    )
    warnings.showwarning = _show_warning
    if quiet:
        warnings.simplefilter("ignore", CaptureWarning)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Show a warning as one line on stderr."""
    click.echo(f"warning: {message}", err=True)


def _output(function: _F) -> _F:
    """Add the options -o and --force."""
    function = click.option(
        "-f", "--force", is_flag=True, help="Replace OUT if it exists."
    )(function)
    return click.option(
        "-o",
        "--output",
        metavar="OUT",
        required=True,
        type=click.Path(path_type=Path),
        help="File to write; nothing is left behind after an error.",
    )(function)


def _json(function: _F) -> _F:
    """Add the option --json."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON instead of a table."
    )(function)


def _model_option(function: _F) -> _F:
    """Add the option --model."""
    return click.option(
        "--model",
        type=click.Path(path_type=Path),
        help="Model directory. Default: the base model of the package.",
    )(function)


def _device_option(function: _F) -> _F:
    """Add the option --device."""
    return click.option(
        "--device",
        default="auto",
        show_default=True,
        help="auto, cpu, vulkan or vulkan:N (see `netdiffusion devices`).",
    )(function)


_seed = click.option("--seed", default=0, show_default=True, help="Seed of the draws.")


def _events(default: Events) -> Callable[[_F], _F]:
    """Return the option that says what becomes of drawn events."""
    return click.option(
        "--events",
        type=click.Choice(["quiet", "keep"]),
        default=default,
        show_default=True,
        help="keep: resets, closed windows and lost segments stay as drawn, and "
        "readers of captures warn of them.",
    )


def _payload_option(function: _F) -> _F:
    """Add the option --payload."""
    return click.option(
        "--payload",
        type=click.Choice(get_args(Payload)),
        default="zeros",
        show_default=True,
        help="Payload of a capture; protocol: messages of each flow's service.",
    )(function)


_captures = click.argument(
    "captures", nargs=-1, required=True, type=click.Path(path_type=Path)
)


@main.command()
@_captures
@_output
@click.option(
    "--labels",
    metavar="dirname|manifest:FILE|NAME",
    help="Where classes come from. Default: each capture's file name.",
)
@click.option("--png", type=click.Path(path_type=Path), help="Pictures go here.")
@click.option(
    "--layout",
    type=click.Choice([n for n in nd.layouts() if n != "netdiffusion-canonical"]),
    default="netdiffusion-1088",
    show_default=True,
)
@click.option(
    "--max-packets", type=click.IntRange(min=1), default=1024, show_default=True
)
@click.option("--bpf", help='Filter of libpcap, such as "tcp port 443".')
@click.option(
    "--on-error",
    type=click.Choice(["raise", "warn", "skip"]),
    default="raise",
    show_default=True,
    help="What a malformed packet or a cut file does.",
)
def encode(
    captures: tuple[Path, ...],
    output: Path,
    force: bool,
    png: Path | None,
    **options: Any,
) -> None:
    """Read CAPTURES (files or directories) into a flow set, OUT.npz."""
    _check_output(output, force, (".npz",))
    _check_pictures(png, force)
    try:
        flows = nd.read_flows(captures, **options)
    except ValueError as why:
        if isinstance(why, nd.Error):
            raise
        raise click.UsageError(str(why)) from None  # such as a filter's grammar
    flows.save(output, overwrite=force)
    if png is not None:
        flows.to_png(png, overwrite=force)
    _say(f"{output}: {flows!r}{_left_out(flows)}")


def _left_out(flows: nd.FlowSet) -> str:
    """Say which packets of the captures read are not among the flows."""
    captures = flows.meta.get("captures", [])
    kinds = {
        "filtered": "not let pass by the filter",
        "ignored": "not TCP, UDP or ICMP over IP",
        "malformed_count": "malformed",
        "fragments": "fragments without their first one",
        "over_limit": "beyond --max-packets",
    }
    totals = {text: sum(c[kind] for c in captures) for kind, text in kinds.items()}
    told = [f"{count:,} {text}" for text, count in totals.items() if count]
    cut = sum(c["cut"] is not None for c in captures)
    told += [f"{cut} cut file{'s'[: cut - 1]}"] if cut else []
    return f"; left out: {', '.join(told)}" if told else ""


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@_json
def inspect(file: Path, as_json: bool) -> None:
    """Tell what FILE holds: a capture, a flow set or a model."""
    if file.is_dir() and (file / "config.json").exists():
        _inspect_model(file, as_json)
        return
    flows = _load(file)
    columns = ("class", "flows", "packets", "transport", "server ports", "seconds")
    lines = flows.summary()
    if as_json:
        _print_json(
            {
                "file": str(file),
                "layout": flows.layout,
                "flows": len(flows),
                "packets": len(flows.rows),
                "synthetic": int(flows.synthetic.sum()),
                "classes": [dict(zip(columns, line, strict=True)) for line in lines],
                "meta": flows.meta,
            }
        )
    else:
        click.echo(repr(flows))
        _print_table(columns, lines)


def _inspect_model(directory: Path, as_json: bool) -> None:
    """Print what a model directory holds."""
    model = nd.FlowDiffusion.from_pretrained(directory)
    config = json.loads((directory / "config.json").read_text())
    classes = model.classes_
    if as_json:
        _print_json({"file": str(directory), "config": config, "classes": classes})
        return
    for part in ("network", "sampler"):
        click.echo(f"{part}: {json.dumps(config[part])}")
    _print_table(("class", "training flows"), [(c, n) for c, n in classes.items()])


@main.command()
@click.argument("flows", type=click.Path(path_type=Path))
@_output
@click.option("--config", type=click.Path(path_type=Path), help="TOML of settings.")
@click.option("--minutes", type=float, help="Stop after this time.")
@click.option("--resume", is_flag=True, help="Go on from OUT's checkpoint.")
@_seed
def train(
    flows: Path,
    output: Path,
    force: bool,
    config: Path | None,
    minutes: float | None,
    resume: bool,
    seed: int,
) -> None:
    """Train a model on the flow set FLOWS.npz and write the directory OUT.

    On several processes: torchrun --nproc-per-node N -m netdiffusion train ...
    """
    nd.FlowDiffusion.train_directory(
        nd.FlowSet.load(flows),
        output,
        config=config,
        minutes=minutes,
        seed=seed,
        resume=resume,
        overwrite=force,
    )


@main.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("flows", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Name of the new class.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="A copy of the model with it. Default: into MODEL.",
)
@click.option("--minutes", type=float, help="Time budget; default 4.")
@click.option("--steps", type=int, help="Training steps; default: what fits best.")
@click.option(
    "--rank", type=click.IntRange(1), default=8, show_default=True, help="Its size."
)
@click.option("--force", is_flag=True, help="Replace what exists.")
@_seed
def adapt(
    model: Path,
    flows: Path,
    name: str,
    output: Path | None,
    minutes: float | None,
    steps: int | None,
    rank: int,
    seed: int,
    force: bool,
) -> None:
    """Teach MODEL a class from a few flows of it, FLOWS.npz.

    The adapter is written into MODEL, or into a copy of it, OUT. Flows of classes
    that the model knows are replayed.
    """
    nd.FlowDiffusion.adapt_directory(
        model,
        _load(flows),
        output,
        name=name,
        minutes=minutes,
        steps=steps,
        rank=rank,
        seed=seed,
        overwrite=force,
    )


def _counts(
    ctx: click.Context, param: click.Parameter, values: Sequence[str]
) -> dict[str, int]:
    """Turn ``CLASS=COUNT`` words into counts; a class named twice adds up."""
    wanted: dict[str, int] = {}
    for value in values:
        name, _, count = value.rpartition("=")
        if not name or not count.isdecimal():
            raise click.BadParameter(
                f"{value!r} is not of the form CLASS=COUNT, such as youtube=20"
            )
        wanted[name] = wanted.get(name, 0) + int(count)
    return wanted


def _control(
    ctx: click.Context, param: click.Parameter, values: Sequence[str]
) -> dict[str, Any]:
    """Turn ``FIELD=VALUE`` words into what `nd.Control` takes."""
    fields: dict[str, Any] = {}
    for value in values:
        name, _, text = value.partition("=")
        if not name or not text:
            raise click.BadParameter(
                f"{value!r} is not of the form FIELD=VALUE, such as server_port=443"
            )
        words = text.split(",")
        if all(":" in word for word in words):
            sides = (word.partition(":") for word in words)
            fields[name] = {side: _number(one) for side, _, one in sides}
        else:
            fields[name] = [_number(w) for w in words] if words[1:] else _number(text)
    return fields


def _number(text: str) -> int | float | str | bytes:
    """Return the number that a word is; ``hex=`` gives bytes; else the word."""
    if text.startswith("hex="):
        try:
            return bytes.fromhex(text[4:])
        except ValueError:
            raise click.BadParameter(f"{text!r} is not hexadecimal") from None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


@main.command()
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.option(
    "-n",
    "counts",
    metavar="CLASS=COUNT",
    multiple=True,
    required=True,
    callback=_counts,
    help="Flows of a class; repeatable.",
)
@_output
@_seed
@click.option("--steps", type=int, help="Denoising steps. Default: the model's.")
@click.option(
    "--sampler",
    type=click.Choice(["dpm++2m", "euler", "ancestral"]),
    help="How one noise level leads to the next. Default: the model's.",
)
@click.option(
    "--first",
    type=click.IntRange(min=0),
    default=0,
    help="Number in its class of the first flow: a job in parts.",
)
@_device_option
@click.option("--png", type=click.Path(path_type=Path), help="Pictures go here.")
@click.option(
    "--control",
    "fields",
    metavar="FIELD=VALUE",
    multiple=True,
    callback=_control,
    help="Hold a field in all packets: transport=udp, server_port=443, "
    "ttl=client:64,server:128, direction=0,1,0. Repeatable.",
)
@click.option(
    "--skeleton",
    type=click.Path(path_type=Path),
    help="Flow set whose lengths, directions, times and headers are held.",
)
@_events("quiet")
@_payload_option
def sample(
    model: Path | None,
    counts: dict[str, int],
    output: Path,
    force: bool,
    png: Path | None,
    events: Events,
    payload: Payload,
    fields: dict[str, Any],
    skeleton: Path | None,
    **options: Any,
) -> None:
    """Draw flows of classes from MODEL and write OUT.pcap, .pcapng or .npz."""
    _check_output(output, force, payload=payload)
    _check_pictures(png, force)
    drawer = nd.FlowDiffusion.from_pretrained(model)
    outline = None if skeleton is None else _load(skeleton)
    control = nd.Control(fields, outline) if fields or skeleton else None
    repairs = nd.RepairOptions(events=events)
    try:
        if png is None:
            told = drawer.sample_to(
                output,
                counts,
                control=control,
                options=repairs,
                payload=payload,
                check=True,
                overwrite=force,
                **options,
            )
            _say(f"{output}: {told}")
            _end(told.violations)
            return
        flows = drawer.sample(counts, control=control, options=repairs, **options)
    except (nd.Error, ValueError) as why:
        known = set(counts) <= set(drawer.classes_)
        if known and not str(why).startswith(("control:", "sample:")):
            raise
        raise click.UsageError(str(why)) from None
    written = _save(flows, output, force, payload, options["seed"])
    flows.to_png(png, overwrite=force)
    _say(f"{output}: {flows!r}{_short(written)}")
    _hold(flows)


@main.command()
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path))
@_output
@_seed
@click.option(
    "--report", type=click.Path(path_type=Path), help="JSON: cells changed by rule."
)
@_events("keep")
@_payload_option
def repair(
    inputs: tuple[Path, ...],
    output: Path,
    force: bool,
    seed: int,
    events: Events,
    payload: Payload,
    report: Path | None,
) -> None:
    """Make the flows of INPUTS (.npz, .nprint, .png) obey the protocols."""
    _check_output(output, force, payload=payload)
    if report is not None:
        _check_new(report, force)
    flows = nd.FlowSet.concatenate(_load(path) for path in inputs)
    chosen = nd.RepairOptions(events=events)
    fixed, told = nd.repair(flows, seed=seed, options=chosen, return_report=True)
    written = _save(fixed, output, force, payload, seed)
    if report is not None:
        whole = told.to_dict() | {"payload": written.to_dict()}
        with written_whole(report, overwrite=force) as scratch:
            scratch.write_text(json.dumps(whole, indent=2) + "\n")
    _say(f"{output}: {fixed!r}; {told}{_short(written)}")
    _hold(fixed)


@main.command()
@click.argument("capture", type=click.Path(path_type=Path))
@click.option(
    "--tools",
    metavar="NAME,...",
    default="",
    help=f"Others to ask: {', '.join(TOOLS)}; or all, for those installed.",
)
@click.option(
    "--per",
    type=click.Choice(get_args(Per)),
    default="file",
    show_default=True,
    help="Also list each flow or packet of which something is said.",
)
@_json
@click.pass_context
def validate(
    ctx: click.Context, capture: Path, tools: str, per: Per, as_json: bool
) -> None:
    """Check every packet and flow of CAPTURE (or .npz); exit 4 on a violation."""
    what = nd.FlowSet.load(capture) if capture.suffix == ".npz" else capture
    names = "all" if tools == "all" else [name for name in tools.split(",") if name]
    try:
        told = nd.validate(what, tools=names)
    except ValueError as why:
        if isinstance(why, nd.Error):
            raise
        raise click.UsageError(str(why)) from None  # no tool has that name
    if as_json:
        _print_json(told.to_dict(per))
    else:
        click.echo(str(told))
        _print_findings(told, per)
    if not told.ok:
        ctx.exit(EXIT_VIOLATION)


def _print_findings(told: nd.ValidationReport, per: Per) -> None:
    """Print a line for each flow or packet of which something is said."""
    if per == "flow":
        lines = [
            (line["flow"], line["ends"], n, finding)
            for line in told.by_flow()
            for finding, n in line["findings"].items()
        ]
        _print_table(("flow", "ends", "packets", "finding"), lines)
    elif per == "packet":
        places = ("frame", "flow", "packet")
        lines = [
            (*(line.get(place, "") for place in places), finding)
            for line in told.by_packet()
            for finding in line["findings"]
        ]
        _print_table((*places, "finding"), lines)


@main.command()
@click.argument("real", type=click.Path(path_type=Path))
@click.argument("synthetic", type=click.Path(path_type=Path))
@click.option(
    "--test",
    type=click.Path(path_type=Path),
    help="Real flows to test on. Default: a part of REAL is kept for it.",
)
@_json
@click.option(
    "--report", type=click.Path(path_type=Path), help="Directory: JSON, HTML, plots."
)
@click.option("-f", "--force", is_flag=True, help="Replace the report.")
def evaluate(
    real: Path,
    synthetic: Path,
    test: Path | None,
    as_json: bool,
    report: Path | None,
    force: bool,
) -> None:
    """Compare SYNTHETIC flows with REAL ones: fidelity, utility, copies."""
    if report is not None:
        _check_new(report, force)
    result = nd.evaluate(
        _load(real), _load(synthetic), test=None if test is None else _load(test)
    )
    if report is not None:
        result.save(report, overwrite=force)
    if as_json:
        _print_json(result.to_dict())
    else:
        click.echo(result.table())


@main.command()
@click.argument("flows", type=click.Path(path_type=Path))
@_output
@_model_option
@_seed
@_device_option
@_payload_option
def balance(
    flows: Path,
    output: Path,
    force: bool,
    model: Path | None,
    seed: int,
    device: str,
    payload: Payload,
) -> None:
    """Fill the small classes of FLOWS up to the largest with sampled flows."""
    _check_output(output, force, payload=payload)
    before = _load(flows)
    after = nd.balance_flows(before, model=model, random_state=seed, device=device)
    written = _save(after, output, force, payload, seed)
    _say(f"{output}: {after!r}{_short(written)}")
    _print_table(
        ("class", "before", "after"),
        [(c, before.counts.get(c, 0), n) for c, n in after.counts.items()],
    )
    _hold(after.select(np.flatnonzero(after.synthetic)))


@main.command()
@_json
def devices(as_json: bool) -> None:
    """List the compute devices that can sample."""
    found = nd.devices()
    if as_json:
        _print_json(found)
    else:
        columns = list(found[0])
        _print_table(columns, [[d[c] for c in columns] for d in found])


@main.command()
@_json
def env(as_json: bool) -> None:
    """Tell versions and devices, for a bug report."""
    from netdiffusion.environment import describe

    told = describe()
    if as_json:
        _print_json(told)
    else:
        _print_table(("what", "version"), list(told.items()))


def _load(path: Path) -> nd.FlowSet:
    """Read a flow set, an nPrint file, a picture or a capture."""
    if path.suffix == ".npz":
        return nd.FlowSet.load(path)
    if path.suffix in (".nprint", ".csv"):
        return nd.read_nprint(path)
    if path.suffix == ".png":
        return nd.read_png(path)
    if path.suffix in SUFFIXES or path.is_dir():
        return nd.read_flows(find_captures(path))
    raise nd.FormatError(
        f"{path}: the suffix does not tell what this is; known are .npz, .nprint, "
        f".png and {', '.join(SUFFIXES)}."
    )


def _check_output(
    path: Path,
    force: bool,
    suffixes: Sequence[str] = (".npz", *SUFFIXES),
    payload: Payload = "zeros",
) -> None:
    """Raise before the work rather than after it."""
    if path.suffix not in suffixes or path.is_dir():
        raise click.UsageError(
            f"{path}: the output is a file that ends in {' or '.join(suffixes)}, "
            "which says its form."
        )
    if path.suffix == ".npz" and payload != "zeros":
        raise click.UsageError(
            f"{path}: a flow set holds no payload; --payload is for captures."
        )
    _check_new(path, force)


def _check_new(path: Path, force: bool) -> None:
    """Raise when a file or directory cannot be made there."""
    if path.exists() and not force:
        raise FileExistsError(f"{path}: already exists. Use --force to replace it.")
    if not path.parent.is_dir():
        raise click.UsageError(
            f"{path}: there is no directory {path.parent}. Make it first."
        )


def _check_pictures(folder: Path | None, force: bool) -> None:
    """Raise when a directory holds pictures already."""
    if folder is not None and not force and any(folder.glob("*.png")):
        raise FileExistsError(
            f"{folder}: holds pictures already. Use --force to add to them, or give "
            "another directory."
        )


def _save(
    flows: nd.FlowSet, path: Path, force: bool, payload: Payload, seed: int
) -> PayloadReport:
    """Write a flow set or a capture, by suffix."""
    if path.suffix != ".npz":
        return nd.write_capture(
            flows, path, payload=payload, seed=seed, check=True, overwrite=force
        )
    flows.save(path, overwrite=force)
    return PayloadReport({})


def _hold(flows: nd.FlowSet) -> None:
    """End with exit code 4 when flows that were made here break a rule."""
    told = nd.validate(flows)
    _end("" if told.ok else str(told))


def _end(violations: str) -> None:
    """End with exit code 4 when there are violations."""
    if violations:
        click.echo(violations, err=True)
        click.get_current_context().exit(EXIT_VIOLATION)


def _short(written: PayloadReport) -> str:
    """Say which payloads could not hold their messages."""
    return f"; {written}" if written.services else ""


def _say(message: str) -> None:
    """Tell something on stderr, unless --quiet."""
    logging.getLogger("netdiffusion").info(message)


def _print_json(value: Any) -> None:
    """Print JSON on stdout."""
    click.echo(json.dumps(value, indent=2, default=str))


def _print_table(columns: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    """Print aligned columns on stdout; numbers to the right."""
    cells = [[str(c) for c in line] for line in lines]
    numeric = [
        all(line[i].replace(".", "").isdecimal() for line in cells) and bool(cells)
        for i in range(len(columns))
    ]
    widths = [
        max(len(line[i]) for line in [columns, *cells]) for i in range(len(columns))
    ]
    for line in [columns, *cells]:
        padded = (
            c.rjust(w) if right else c.ljust(w)
            for c, w, right in zip(line, widths, numeric, strict=True)
        )
        click.echo("  ".join(padded).rstrip())
