"""Metrics and logs: every series and every log field is named here.

Never a prompt, an output or a key in either.
"""
