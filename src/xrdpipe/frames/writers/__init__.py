"""One module per family of file layouts, each the counterpart of a reader."""
