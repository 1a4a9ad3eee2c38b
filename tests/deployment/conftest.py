from site_programs import cells, configure, make_site  # noqa: F401
