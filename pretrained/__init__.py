"""Cards of the SAE releases, and the small weights that ship with the package."""
