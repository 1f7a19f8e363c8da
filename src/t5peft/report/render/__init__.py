"""From .qmd to notebook, PDF and HTML, without Quarto too."""
