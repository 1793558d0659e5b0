"""Python runs this before anything else where this folder is on PYTHONPATH."""

import stand_in_device  # type: ignore[import-not-found]

stand_in_device.install()
