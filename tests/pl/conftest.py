from measured_cells import balanced, corrected, demo, history, ledger, mixed, one_thread, pbmc  # noqa: F401  (fixtures)
