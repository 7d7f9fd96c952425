"""Ways to reach an engine: in this process, later in a child process.

All behave the same under tests/contracts/.
"""
