"""Small modules outside the packages, under the names that node packs import."""
