"""The tests, as a package: so no other distribution's `tests` is found in its place."""
