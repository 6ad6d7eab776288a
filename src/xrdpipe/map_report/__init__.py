"""The report of a map: what a person wants to know of it, gathered, judged, and put on a page."""
