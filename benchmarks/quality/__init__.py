"""The parts of ``bench_quality.py``: data, sources of flows, figures, acceptance."""
