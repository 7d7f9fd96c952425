"""The same work on Tollgate and on its peers, in one run, as ratios; `make bench` writes docs/benchmarks.md.

Nothing here is imported by app/, and of app/ only the public interface is used: the engine's client, and the server
over HTTP.
"""
