"""Pure decisions: which rows run in the next step.

No torch, no clock, no await.
"""
