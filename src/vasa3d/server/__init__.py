"""The live page and its server: a player for browsers, and motion that follows speech as it comes."""
