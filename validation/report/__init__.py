"""Reports of the model's error: their content (kernels, runs), and how it is shown (page, markdown, terminal)."""
