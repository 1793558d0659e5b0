raise ImportError("not there yet")
