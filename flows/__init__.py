"""The order of a run's steps, and the command line."""

from flows.early_interrupts import EARLY

# Until what a process came for is imported, Ctrl-C may strike where Python drops it.
EARLY.hold()
