"""Pages: what a report consists of, one set of templates, one style of plots, and the report of a run."""
