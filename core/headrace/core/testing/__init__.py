"""Fakes and fault injectors, shipped so that users test with what we test with."""
