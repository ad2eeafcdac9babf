"""The engine seam (`seam`) and the engines behind it (`embedded`)."""
