"""The composition: a YAML file becomes parts, a supervisor keeps them, the CLI talks to them."""
