"""From the text of a YAML file to sections a part can use, with every error at its place."""
