from measured_cells import demo, ideal_demo, one_thread  # noqa: F401  (fixtures)
