"""Two experts to try the Train tab with: short texts of two kinds that are easy to tell apart."""

_SQL = """SELECT name, city FROM customers WHERE city = 'Lyon' ORDER BY name;
SELECT COUNT(*) FROM orders WHERE placed_on >= '2024-03-01';
SELECT city, AVG(total) AS mean_total FROM orders GROUP BY city HAVING COUNT(*) > 5;
UPDATE products SET price = price * 1.05 WHERE category = 'books';
DELETE FROM sessions WHERE last_seen < NOW() - INTERVAL '30 days';
INSERT INTO customers (name, city) VALUES ('Nora Lindt', 'Graz');
SELECT c.name, o.total FROM customers c JOIN orders o ON o.customer_id = c.id;
CREATE TABLE invoices (id INTEGER PRIMARY KEY, total NUMERIC NOT NULL, paid BOOLEAN);
SELECT DISTINCT category FROM products WHERE stock = 0;
CREATE INDEX orders_by_day ON orders (placed_on);
SELECT name FROM employees WHERE manager_id IS NULL;
SELECT MAX(price) - MIN(price) AS spread FROM products GROUP BY category;
ALTER TABLE customers ADD COLUMN email TEXT;
SELECT p.name FROM products p LEFT JOIN orders o ON o.product_id = p.id WHERE o.id IS NULL;
SELECT city, COUNT(*) FROM customers GROUP BY city ORDER BY COUNT(*) DESC LIMIT 3;
UPDATE orders SET shipped = TRUE WHERE id IN (4, 8, 15, 16, 23, 42);"""

_FRENCH = """Le matin, la boulangère ouvre sa boutique avant que la rue ne s'éveille.
Nous avons marché le long du canal jusqu'à la vieille écluse.
Il pleuvait si fort que personne n'osait traverser la place.
Ma grand-mère garde ses lettres dans une boîte en fer bleue.
Au marché, les pêcheurs crient le prix du poisson du jour.
Le train de huit heures est parti sans nous, encore une fois.
Elle a planté des tulipes rouges devant la maison de son frère.
Les enfants cherchent des coquillages pendant que la mer descend.
Le musée reste ouvert tard le jeudi, et l'entrée est gratuite.
On entend un violon derrière les volets fermés du deuxième étage.
Le chat dort au soleil, entre deux pots de basilic.
Demain, nous prendrons la route de la montagne avec un ami.
Le professeur écrit la date au tableau sans se retourner.
Cette année, les cerises sont petites mais très sucrées.
Un vieux monsieur nourrit les pigeons près de la fontaine.
La lampe du phare balaie la baie toutes les dix secondes."""

EXAMPLE: tuple[dict[str, str], ...] = (
    {"name": "sql", "description": "SQL statements", "kind": "paste", "text": _SQL},
    {"name": "french", "description": "French sentences", "kind": "paste", "text": _FRENCH},
)
"""Rows as the editor of the experts has them."""
