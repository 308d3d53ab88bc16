"""``python -m netdiffusion``."""

from netdiffusion.cli import main

main(prog_name="netdiffusion")
