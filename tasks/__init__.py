"""One module for each step of a run."""
