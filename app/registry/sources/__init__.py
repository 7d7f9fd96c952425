"""Where a model's files come from: a hub, a folder, an installed package.

A source only locates files; verify.py judges them.
"""
