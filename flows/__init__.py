"""The order of a run's steps, and the command line."""
