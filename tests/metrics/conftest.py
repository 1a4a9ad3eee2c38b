from measured_cells import equal_types, ideal_embedding, one_thread, pbmc  # noqa: F401  (fixtures)
