"""Texts to try, each of another kind: short and whole ones, and beginnings to go on from."""

EXAMPLES = {
    "SQL": (
        "SELECT city, COUNT(*) AS orders\nFROM customers JOIN orders USING (customer_id)\n"
        "WHERE placed_on >= '2024-01-01'\nGROUP BY city\nORDER BY orders DESC\nLIMIT 10;"
    ),
    "French": (
        "Le train de nuit quitte la gare vers vingt-trois heures. Par la fenêtre, on ne voit plus "
        "que les lumières des villages, et quelqu'un, au bout du couloir, parle à voix basse."
    ),
    "Recipe": (
        "Warm two tablespoons of olive oil in a heavy pan. Add one chopped onion and a pinch of "
        "salt, and cook gently for ten minutes until soft. Stir in the lentils, cover with stock "
        "and simmer for half an hour."
    ),
    "Python": (
        "def moving_average(values, width):\n"
        '    """Mean of each run of `width` neighbours."""\n'
        "    total = sum(values[:width])\n    means = [total / width]\n"
        "    for left, right in zip(values, values[width:]):\n"
        "        total += right - left\n        means.append(total / width)\n    return means"
    ),
    "Verse": (
        "QUEEN. What light is this that walks before the dawn,\n"
        "And bids the sleeping sentinels give way?\n"
        "CAPTAIN. No light, my queen, but fires upon the shore:\n"
        "Thy brother's ships are come, and come in wrath."
    ),
    "Arithmetic": (
        "Question: A shop sells pencils in boxes of 12. Nora buys 7 boxes and gives away 15 "
        "pencils. How many has she left?\nAnswer: 7 * 12 = 84. 84 - 15 = 69. She has 69 pencils."
    ),
    "Mixed": (
        "-- recipes for the week\nSELECT title, minutes FROM recipes WHERE minutes < 30;\n\n"
        "Le premier résultat est une soupe à l'oignon, simple et rapide.\n\n"
        "Slice four onions and brown them slowly in butter. Pour in a litre of stock, "
        "simmer for twenty minutes, and serve with toasted bread."
    ),
}
"""Whole texts; the last mixes three kinds."""

BEGINNINGS = {
    "SQL": "-- customers with more than three orders\nSELECT",
    "French": "Le soir, dans la petite ville, le marché",
    "Recipe": "Slice the onions and cook them slowly in butter.",
    "Python": "def count_words(text):\n",
    "Question": "Question: What is the capital of France?\nAnswer:",
}
"""Beginnings that a model goes on from."""
