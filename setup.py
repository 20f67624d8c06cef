"""Compiled modules; everything else is in pyproject.toml.

OUTPOST_TRACE=1 builds with line tracing for coverage, OUTPOST_ANNOTATE=1 writes Cython's annotated HTML.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup

TRACE = bool(os.environ.get("OUTPOST_TRACE"))
Options.warning_errors = True

TRACE_MACROS = [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")]

setup(
    ext_modules=cythonize(
        [
            Extension(
                str(path.with_suffix("")).replace(os.sep, "."),
                [str(path)],
                extra_compile_args=["-O0"] if TRACE else ["-O2", "-Wall"],
                define_macros=TRACE_MACROS if TRACE else [],
            )
            for path in sorted(Path("outpost").rglob("*.pyx"))
        ],
        annotate=bool(os.environ.get("OUTPOST_ANNOTATE")),
        compiler_directives={"linetrace": TRACE},
    ),
)
