"""Pairwise masks over a coordinator alone (Bonawitz et al. 2017). Needs the extra ``masked``."""
