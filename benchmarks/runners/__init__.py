"""One file an engine, each behind the protocol in runner.py.

Never here: what the work is, how it is timed, what is written about it.
"""
