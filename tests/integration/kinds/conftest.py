"""Models on disk for these tests."""

from tests.support.model_folders import folders as folders
