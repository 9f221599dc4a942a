"""Runs that are cancelled, killed, cut off and denied, and what is left of them afterwards."""
