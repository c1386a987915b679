"""What holds for all tests: none of them reaches a hub."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the libraries are imported
