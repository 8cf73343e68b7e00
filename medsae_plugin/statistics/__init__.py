"""Tests and their corrections on arrays alone: what is random is which patient has which labels."""
