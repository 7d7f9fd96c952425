"""The tollgate command, one file a noun; thin: calls the rooms and prints.

No rule that the HTTP API would need too.
"""
