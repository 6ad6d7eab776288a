"""Following a scan while it is measured: frames become pixels as they come."""
