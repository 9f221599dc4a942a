"""A module whose own imports fail."""

import no_such_package_anywhere  # type: ignore[import-not-found]  # that is the point

print(no_such_package_anywhere)  # noqa: T201 - never reached
