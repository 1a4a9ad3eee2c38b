"""Secret shares among compute parties (CrypTen: Knott et al. 2021). Needs the extra ``crypten``."""
