"""Three short texts for each skill of the demo bank, written for these tests: nobody trained on them."""

TEXTS = {
    "python": [
        'def rotate(items, steps):\n    """Move every item `steps` places to the right."""\n    if not items:\n        return []\n    steps %= len(items)\n    return items[-steps:] + items[:-steps]\n\n\ndef chunked(items, size):\n    """Yield successive lists of at most `size` items."""\n    if size < 1:\n        raise ValueError("size must be at least 1")\n    for start in range(0, len(items), size):\n        yield items[start:start + size]\n',
        'class Inventory:\n    """Counts of parts by name."""\n\n    def __init__(self, counts=None):\n        self._counts = dict(counts or {})\n\n    def add(self, name, count=1):\n        self._counts[name] = self._counts.get(name, 0) + count\n\n    def take(self, name, count=1):\n        left = self._counts.get(name, 0) - count\n        if left < 0:\n            raise KeyError("not enough of %s" % name)\n        self._counts[name] = left\n        return left\n',
        'import os\nfrom collections import Counter\n\n\ndef suffixes(folder):\n    """Count the file name suffixes below a folder."""\n    found = Counter()\n    for root, dirs, files in os.walk(folder):\n        for name in files:\n            found[os.path.splitext(name)[1]] += 1\n    return found\n\n\nif __name__ == "__main__":\n    for suffix, count in suffixes(".").most_common(10):\n        print(suffix, count)\n',
    ],
    "sql": [
        "-- boats and their moorings\nCREATE TABLE boat (\n  id integer PRIMARY KEY,\n  name text NOT NULL,\n  length numeric(5,2)\n);\nCREATE TABLE mooring (\n  boat_id integer REFERENCES boat(id),\n  pier text,\n  since date\n);\nINSERT INTO boat VALUES (1, 'Heron', 8.20), (2, 'Tern', 6.75);\nSELECT b.name, m.pier FROM boat b JOIN mooring m ON m.boat_id = b.id WHERE b.length > 7 ORDER BY b.name;\n",
        "SELECT department, count(*) AS people, avg(salary) AS mean_salary\nFROM employee\nWHERE hired >= '2015-01-01'\nGROUP BY department\nHAVING count(*) > 3\nORDER BY mean_salary DESC;\n\nUPDATE employee SET salary = salary * 1.02 WHERE department = 'workshop';\nDELETE FROM employee WHERE left_on IS NOT NULL;\n",
        "BEGIN;\nCREATE VIEW open_orders AS\n  SELECT o.id, c.name, o.total\n  FROM orders o LEFT JOIN customers c ON c.id = o.customer_id\n  WHERE o.closed IS NULL;\nEXPLAIN (COSTS OFF) SELECT * FROM open_orders WHERE total > 100;\nDROP VIEW open_orders;\nROLLBACK;\n",
    ],
    "french": [
        "Le phare de la pointe fut construit à la fin du dix-neuvième siècle pour guider les bateaux de pêche qui rentraient au port. Sa tour de granit, haute de trente mètres, est aujourd'hui classée monument historique et reçoit chaque été plusieurs milliers de visiteurs.",
        "La bibliothèque municipale conserve une importante collection de cartes anciennes. Fondée par un notaire de la ville, elle occupe depuis 1932 un ancien couvent dont le cloître a été restauré. On y trouve également des manuscrits, des gravures et un fonds consacré à l'histoire de la région.",
        "Le sureau noir est un arbuste commun des haies d'Europe. Ses fleurs blanches, réunies en larges bouquets, apparaissent au mois de juin ; ses baies, d'un violet presque noir, mûrissent à la fin de l'été et servent à préparer des sirops et des confitures.",
    ],
    "spanish": [
        "El puente viejo cruza el río a la entrada del pueblo y fue durante siglos el único paso entre los dos valles. Se construyó en piedra caliza en el siglo XVI y conserva tres de sus cinco arcos originales, además de una pequeña capilla dedicada a los viajeros.",
        "La orquesta juvenil de la ciudad fue fundada en 1978 por un grupo de profesores del conservatorio. Está formada por unos sesenta músicos de entre doce y veinte años, y ofrece cada temporada una decena de conciertos en teatros y plazas de la provincia.",
        "El halcón es un ave rapaz de tamaño mediano que habita en acantilados y zonas rocosas. Se alimenta sobre todo de otras aves, que captura en pleno vuelo, y suele regresar cada año al mismo lugar para criar a sus polluelos.",
    ],
    "encyclopedia": [
        "The Alder Canal is a disused waterway in the north of the county. Opened in 1811 to carry limestone and coal, it ran for seventeen miles and had twenty-three locks. Traffic declined after the railway arrived in the 1840s, and the canal was abandoned in 1926. Parts of it have since been restored.",
        "A tuning peg is a device used to hold a string in the pegbox of a stringed instrument. Turning the peg tightens or loosens the string and so changes its pitch. Pegs are usually made of a hard wood such as ebony or boxwood, and are held in place by friction.",
        "Cloud forests are tropical mountain forests characterised by frequent low-level cloud cover. They occur mostly between one thousand and three thousand metres above sea level. Mosses, ferns and orchids are abundant, and many of the species that live there are found nowhere else.",
    ],
    "recipes": [
        "Barley and Leek Soup\n\nServes: 4\nTime: 50 minutes\nIngredients:\n- 100 g pearl barley\n- 3 leeks, sliced\n- 1 carrot, diced\n- 2 tablespoons butter\n- 1 litre vegetable stock\n- Salt\n- Pepper\n\nMethod:\n1. Melt the butter in a large pan and add the leeks and carrot.\n2. Cook gently for 10 minutes, stirring from time to time.\n3. Add the barley and stock, bring to a boil, and simmer for 35 minutes until tender.\n4. Season with salt and pepper and serve hot.\n",
        "Walnut Biscuits\n\nIngredients:\n- 2 cups plain flour\n- 1 teaspoon baking powder\n- 1/2 cup sugar\n- 1/2 cup butter, softened\n- 1 egg\n- 1 cup chopped walnuts\n\nMethod:\n1. Preheat the oven to 180°C (350°F).\n2. Cream the butter and sugar, then beat in the egg.\n3. Sift together the flour and baking powder and stir into the mixture with the walnuts.\n4. Drop spoonfuls onto a greased baking sheet and bake for 12 minutes until golden brown.\n",
        "Spiced Chickpeas\n\nIngredients:\n- 2 cups cooked chickpeas\n- 1 onion, chopped\n- 2 cloves garlic, minced\n- 1 teaspoon ground cumin\n- 1/2 teaspoon turmeric\n- 1 cup chopped tomatoes\n- 2 tablespoons oil\n\nMethod:\n1. Heat the oil in a pan and fry the onion until soft.\n2. Add the garlic and spices and stir for 1 minute.\n3. Add the tomatoes and chickpeas, cover, and simmer for 15 minutes.\n4. Garnish with coriander and serve with rice.\n",
    ],
    "drama": [
        "DUKE.\nWhat news, good Marcus? Speak, and be not slow;\nThy face hath more of winter than of spring.\n\nMARCUS.\nMy lord, the queen thy sister is not dead;\nShe lives, and with her ten thousand horse.\n\nDUKE.\nO heaven, that dost mock us with thy gifts!\nCome, let us to the gates, and bid her welcome.\n\n[Exeunt.]\n",
        "[Enter a Porter.]\n\nPORTER.\nWho knocks so late? By my faith, here's a man\nWould wake the dead to ask them for the hour.\n\nSERVANT.\nGood fellow, open; 'tis my master's will\nThat thou shouldst bear this letter to the prince.\n\nPORTER.\nA letter, say'st thou? Then I am undone,\nFor letters ever bring me to a whipping.\n",
        "LADY ANNE.\nI do not love thee, sir; yet I do grieve\nTo see thee stand so pale before my door.\n\nLORENZO.\nThen is thy grief more gentle than thy tongue.\nSweet lady, if mine eyes have done thee wrong,\nPut out their light, and let me be thy blind man.\n\n[Kneels.]\n\nLADY ANNE.\nRise up, my lord; I prithee, kneel no more.\n",
    ],
    "math": [
        "Question: What is 48 divided by -6?\nAnswer: -8\n\nQuestion: Calculate 17.5 + -3.25.\nAnswer: 14.25\n\nQuestion: Let f(x) = 3*x**2 - 2*x. What is f(4)?\nAnswer: 40\n\nQuestion: Collect the terms in 7*y - 12*y + 30*y.\nAnswer: 25*y\n\nQuestion: What is the highest common divisor of 84 and 36?\nAnswer: 12\n",
        "Question: Round 48172 to the nearest one thousand.\nAnswer: 48000\n\nQuestion: Solve 5*k - 3 = 2*k + 9 for k.\nAnswer: 4\n\nQuestion: Evaluate (-3)/(-6) + 2.\nAnswer: 5/2\n\nQuestion: What is the remainder when 1000 is divided by 37?\nAnswer: 1\n\nQuestion: Is 91 a prime number?\nAnswer: False\n",
        "Question: Find the first derivative of 4*x**3 + 6*x - 11.\nAnswer: 12*x**2 + 6\n\nQuestion: What is the third biggest value in 4, -9, 0.5, 12?\nAnswer: 0.5\n\nQuestion: How many minutes are there in 3/4 of an hour?\nAnswer: 45\n\nQuestion: Simplify sqrt(50)/sqrt(2).\nAnswer: 5\n\nQuestion: What is 111 (base 2) in base 10?\nAnswer: 7\n",
    ],
}
