# Everything is stated in pyproject.toml; this file serves tools that still look for a setup.py.
__import__("setuptools").setup()
