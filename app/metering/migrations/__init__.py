"""Alembic's migrations, run in code by database.py; no alembic.ini is needed.

A migration that has landed is never edited.
"""
