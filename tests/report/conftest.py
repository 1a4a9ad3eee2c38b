from measured_cells import demo, history, ideal_demo, ledger, one_thread  # noqa: F401  (fixtures)
