from measured_cells import one_thread  # noqa: F401  (a fixture)
