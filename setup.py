"""The optional compiled kernel; everything else is in pyproject.toml.

Where it cannot be compiled (no compiler, or not gcc or clang) the installation goes on without it.
"""

from setuptools import Extension, setup

SOURCES = "src/xrdpipe/integration/kernel"
HEADERS = (
    "byte_offset", "lanes", "lz4", "one_isa", "outliers", "plan", "rejection", "ring_statistics",
    "ring_sums", "workspace",
)  # fmt: skip

setup(
    ext_modules=[
        Extension(
            "xrdpipe.integration._kernel",
            [f"{SOURCES}/kernel.c"],
            depends=[f"{SOURCES}/{name}.h" for name in HEADERS],
            # Contracted products would decide differently on a pixel than numpy does.
            extra_compile_args=["-O3", "-ffp-contract=off", "-fno-math-errno", "-g0"],
            define_macros=[("Py_LIMITED_API", "0x030b0000")],
            py_limited_api=True,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
