"""Python runs this before anything else where this folder is on PYTHONPATH."""

import stand_in_device

stand_in_device.install()
