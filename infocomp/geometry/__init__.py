"""Where rows lie and what moved between two models: spectra, similarity, words, preference information, curvature."""
