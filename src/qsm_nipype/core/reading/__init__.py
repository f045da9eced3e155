"""From images as the scanner exported them to phase in radians and magnitude.

`acquisition` reads one acquisition: `stored` holds its images, `phase` and `parts` convert them,
`proof` finds in the image itself what a turn is, `units` and `decision` weigh that against what is
stated, `checks` refuse what is not what its name says, `polarity` finds the sign.
"""
