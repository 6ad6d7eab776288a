"""What beamlines write into HDF5: one module per layout, and where their pixels lie."""
