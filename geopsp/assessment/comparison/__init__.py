"""Two models on the same chips: is one better?"""
