"""Scenarios: what load to make, in which phases, and what the relay must hold under it."""
