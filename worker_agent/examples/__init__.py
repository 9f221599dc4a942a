"""Journeys to learn from, with the pages that they drive."""
