"""A map in the browser: what is selected and shown (no Bokeh there), and the page that shows it."""
