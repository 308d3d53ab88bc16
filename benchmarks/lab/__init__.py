"""Real servers and real clients in network namespaces: labelled captures.

Run ``sudo python -m benchmarks.lab -o DIR`` from the repository root; the
README beside this file says what it needs and what comes out.
"""
