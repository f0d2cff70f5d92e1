"""Packaging: what is installed, and what for.

The README's dependency table gives the reason for each library.

The modules of `compiled_modules.txt`, those that every request goes through, are compiled with
mypyc if the machine has a C compiler. Without one, and with `WITHOUT_MYPYC=1`, they are installed
as Python, which does the same, slower.
"""

import os
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).parent
COMPILED = (HERE / "compiled_modules.txt").read_text().split()
VERSION = next(
    line.split('"')[1]
    for line in (HERE / "batcher/__init__.py").read_text().splitlines()
    if line.startswith("__version__")
)

ONNX = ["onnxruntime>=1.20"]
GRPC = [
    "grpcio>=1.66",
    "protobuf>=6.31,<8",
    "grpcio-health-checking>=1.66",
    "grpcio-reflection>=1.66",
]
SKLEARN = ["scikit-learn>=1.5", "joblib>=1.4", "pandas>=2.2"]
XGBOOST = ["xgboost-cpu>=3.0"]
LIGHTGBM = ["lightgbm>=4.5"]
KERAS = ["keras>=3.14"]  # earlier ones run code that is hidden in files
TEXT = ["tokenizers>=0.20"]
STORES = ["obstore>=0.9"]
PARQUET = ["pyarrow>=18"]
REDIS = ["txredisapi>=1.6"]
ZEROMQ = ["pyzmq>=26"]
DNS = ["dnspython>=2.6"]
ZOOKEEPER = ["kazoo>=2.10"]
RAY = ["ray>=2.60"]
GPU = ["nvidia-ml-py>=12.535"]
BUILD_ONNX = ["onnx>=1.17"]
# The weights are in this version's wheel, which is the last of its name.
OCR = ["rapidocr-onnxruntime>=1.4.4,<1.5; python_version < '3.13'", *ONNX, *BUILD_ONNX]
TEST = [
    "pytest>=8",
    "pytest-xdist>=3.8",
    "hypothesis>=6.100",
    "aiohttp>=3.11",
    "requests>=2.32",
    "schemathesis>=4.32",
    "httpx>=0.27",
    "treq>=24.9",
    "h11>=0.14",
    "msgpack-numpy>=0.4.8",
    *ONNX,
    *GRPC,
    *STORES,
    *PARQUET,
    *REDIS,
    *ZEROMQ,
    *DNS,
    *ZOOKEEPER,
    *BUILD_ONNX,
    *SKLEARN,
]
TEST_CLIENTS = ["tritonclient[http,grpc]>=2.73", "kserve>=0.21"]
DOCS = ["zensical>=0.0.73"]
BENCH = ["mosec>=0.9.8", "fastapi>=0.115", "uvicorn>=0.32"]
DEV = [
    *TEST,
    *TEST_CLIENTS,
    *RAY,
    "ruff>=0.9",
    "mypy>=1.14",
    "mypy-zope>=1.0",
    "types-PyYAML",
    "types-protobuf",
]


class BuildCompiled(build_ext):
    """Compiles the modules, or says why they stay Python: the package works without."""

    def run(self) -> None:
        """Find out what to build only now: most commands of an installation do not need to know."""
        self._remove_old()
        try:
            self._build(self._extensions())
        except (Exception, SystemExit) as err:  # mypyc ends the process where it finds no compiler
            self.warn(
                "the modules of compiled_modules.txt stay Python, which is slower: "
                f"{str(err)[-200:]}"
            )
            self._remove_old()
            self._build([])

    def _remove_old(self) -> None:
        """Remove what earlier runs left: modules may be Python again, or be gone."""
        for folder in {HERE if self.inplace else Path(self.build_lib), Path(self.build_lib)}:
            for old in (*folder.glob("batcher/**/*.so"), *folder.glob("batcher__mypyc.*.so")):
                old.unlink()

    def _extensions(self) -> list[Extension]:
        if os.environ.get("WITHOUT_MYPYC"):
            raise RuntimeError("WITHOUT_MYPYC is set")
        from mypyc.build import mypycify

        options = [
            "--config-file=",
            "--no-site-packages",
            "--ignore-missing-imports",
            "--follow-imports=silent",
        ]
        # Debugging information would have names of temporary folders, other ones at each build.
        extensions: list[Extension] = mypycify(
            [*options, *COMPILED], group_name="batcher", debug_level="0"
        )
        for extension in extensions:
            if "-Wno-error" not in extension.extra_compile_args:  # they may share one list
                extension.extra_compile_args.append("-Wno-error")  # what another compiler warns of
        return extensions

    def _build(self, extensions: list[Extension]) -> None:
        self.extensions = self.distribution.ext_modules = extensions
        self.swig_opts = None  # or it cannot be finalized again, for these extensions
        self.finalize_options()
        super().run()


setup(
    name="batcher-inference",  # on PyPI `batcher` is another program
    version=VERSION,
    description="An asynchronous batching inference server on Twisted and PyTorch",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=[*find_packages(include=["batcher", "batcher.*"]), "twisted.plugins"],
    package_data={"batcher.frontends.grpc._generated": ["*.proto", "*.pyi"]},
    install_requires=[
        "twisted[tls]>=24.10",
        "klein>=24.8",
        "torch>=2.6",
        "numpy>=2.0",
        "mypy-extensions>=1.0",
        "msgpack>=1.1",
        "uvloop>=0.21; sys_platform != 'win32'",
        "httptools>=0.6.4",
        "orjson>=3.10",
        "Pillow>=11",
        "multipart>=1.2",
        "pydantic>=2.10",
        "PyYAML>=6",
        "click>=8.1",
        "rich>=13",
        "safetensors>=0.5",
        "prometheus-client>=0.21",
    ],
    ext_modules=[Extension("batcher", [])],  # says that there are some; the command knows which
    cmdclass={"build_ext": BuildCompiled},
    extras_require={
        "onnx": ONNX,
        "grpc": GRPC,
        "sklearn": SKLEARN,
        "xgboost": XGBOOST,
        "lightgbm": LIGHTGBM,
        "keras": KERAS,
        "text": TEXT,
        "stores": STORES,
        "parquet": PARQUET,
        "redis": REDIS,
        "zeromq": ZEROMQ,
        "dns": DNS,
        "zookeeper": ZOOKEEPER,
        "ray": RAY,
        "gpu": GPU,
        "ocr": OCR,
        "test": TEST,
        "test-clients": TEST_CLIENTS,
        "dev": DEV,
        "bench": BENCH,
        "docs": DOCS,
    },
    entry_points={"console_scripts": ["batcher = batcher.app.entry:main"]},
)
