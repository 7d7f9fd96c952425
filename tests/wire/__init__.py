"""Real, pinned client packages against a live server on a socket.

A new client: either a package of the dev extra that a test calls itself (`live.url`, `key`), or a script in `clients/`
run by `live.run_client(…)`, in the tests' own interpreter or in an environment of its own (`environments/<name>.txt`).
What works is told in docs/compatibility.md.
"""
