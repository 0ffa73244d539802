"""Measurements from other labs: the reference pack, bundles, and how a bundle gets into a release."""
