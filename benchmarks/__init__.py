"""Figures that the documentation claims, each printed by a command here."""
