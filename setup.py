"""Packaging: what is installed, and what for. The README's dependency table gives the reason for each library."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = next(
    line.split('"')[1] for line in (HERE / "batcher/__init__.py").read_text().splitlines() if line.startswith("__version__")
)

ONNX = ["onnxruntime>=1.20"]
BUILD_ONNX = ["onnx>=1.17"]
TEST = [
    "pytest>=8",
    "hypothesis>=6.100",
    "httpx>=0.27",
    "aiohttp>=3.11",
    "requests>=2.32",
    "treq>=24.9",
    "h11>=0.14",
    "msgpack-numpy>=0.4.8",
    *ONNX,
    *BUILD_ONNX,
]
BENCH = ["mosec>=0.9.8", "fastapi>=0.115", "uvicorn>=0.32"]
DEV = [
    *TEST,
    "ruff>=0.9",
    "mypy>=1.14",
    "mypy-zope>=1.0",
    "types-PyYAML",
    "scikit-learn>=1.5",
]

setup(
    name="batcher",
    version=VERSION,
    description="An asynchronous batching inference server on Twisted and PyTorch",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=[*find_packages(include=["batcher", "batcher.*"]), "twisted.plugins"],
    install_requires=[
        "twisted[tls]>=24.10",
        "klein>=24.8",
        "torch>=2.6",
        "numpy>=2.0",
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
    extras_require={"onnx": ONNX, "test": TEST, "dev": DEV, "bench": BENCH},
    entry_points={"console_scripts": ["batcher = batcher.cli:main"]},
)
